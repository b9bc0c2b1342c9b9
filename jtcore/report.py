"""The report of a run: numbers in a table, videos of base and adapted model side by side."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jtcore.data import reference_files
from jtcore.files import write_atomically
from jtcore.media import contact_sheet, read_thumbnails
from jtcore.recipe import Recipe
from jtcore.run import Run

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { text-align: left; padding: .3rem .9rem .3rem 0;
       border-bottom: 1px solid #d8dee4; font-variant-numeric: tabular-nums }
figure { display: inline-block; margin: 0 1rem 1rem 0 } figcaption { color: #57606a }
video, img.reference { width: 12rem; image-rendering: pixelated; border-radius: 4px }
"""


SHOWN = {"image": 8, "video": 2}  # reference files on the contact sheet


def write_report(run: Run, recipe: Recipe) -> None:
    """Write `report.md`, `report.html` and `samples/contact_sheet.png`."""
    results = run.read_json("metrics.json")
    if "samples" in results:
        _write_contact_sheet(run, recipe, results["samples"])
    _write(run.folder / "report.md", "\n".join(_markdown(run, recipe, results)) + "\n")
    _write(run.folder / "report.html", "\n".join(_html(run, recipe, results)) + "\n")


def _title(run: Run, recipe: Recipe) -> str:
    return recipe.title or run.folder.name


def metric_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of metrics: a header, and per metric its value for each model."""
    summary = results.get("metrics", {})
    names = dict.fromkeys(name for values in summary.values() for name in values)
    rows = [
        [name, *(_shown(values[name]) if name in values else "" for values in summary.values())]
        for name in names
    ]
    return ["metric", *summary], rows


def validation_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of held-out losses."""
    rows = [
        [
            name,
            f"{row['base']:.4f}",
            f"{row['adapted']:.4f}",
            f"{row['change']:+.4f} ± {row['change_standard_error']:.4f}",
        ]
        for name, row in results.get("validation", {}).items()
    ]
    return ["held-out data", "base", "adapted", "change ± standard error"], rows


def _shown(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f} ± {value['deviation']:.4f} (n={value['videos']})"


def _tables(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    losses = ("Diffusion loss on held-out files, same noise", *validation_rows(results))
    metrics = ("Metrics of the samples, mean ± deviation over videos", *metric_rows(results))
    return (table for table in (losses, metrics) if table[2])


def _markdown(run: Run, recipe: Recipe, results: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {_title(run, recipe)}\n"
    for title, header, rows in _tables(results):
        yield f"## {title}\n"
        yield from markdown_table(header, rows)
        yield ""
    if "samples" in results:
        yield "## Samples\n\n![references, base and adapted model](samples/contact_sheet.png)\n"
        for entry in results["samples"]:
            file = f"samples/{entry['file']}"
            yield f"- {entry['model']}, seed {entry['seed']}: [{entry['prompt']}]({file})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _html(run: Run, recipe: Recipe, results: Mapping[str, Any]) -> Iterator[str]:
    title = escape(_title(run, recipe))
    yield f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
    yield f"<style>{STYLE}</style><h1>{title}</h1>"
    for heading, header, rows in _tables(results):
        yield f"<h2>{escape(heading)}</h2><table>"
        yield _html_row("th", header)
        yield from (_html_row("td", row) for row in rows)
        yield "</table>"
    samples = results.get("samples", [])
    for prompt in dict.fromkeys(entry["prompt"] for entry in samples):
        yield f"<h2>{escape(prompt)}</h2>"
        yield from (_figure(entry) for entry in samples if entry["prompt"] == prompt)
    if samples:
        yield "<h2>References</h2><img src='samples/contact_sheet.png' style='max-width:100%'>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _figure(entry: Mapping[str, Any]) -> str:
    caption = f"{entry['model']}, seed {entry['seed']}"
    return (
        f"<figure><video src='samples/{escape(entry['file'])}' autoplay loop muted controls>"
        f"</video><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _write_contact_sheet(run: Run, recipe: Recipe, samples: Sequence[Mapping[str, Any]]) -> None:
    """References above, then base and adapted for each prompt and seed."""
    rows = [
        (
            f"reference: {name}",
            [read_thumbnails(path) for path in reference_files(data)[: SHOWN[data.medium]]],
        )
        for name, data in recipe.data.items()
        if not recipe.validation or name not in recipe.validation.data
    ]
    for entry in samples:
        label = f"{entry['model']}, seed {entry['seed']}: {entry['prompt']}"
        rows.append((label, [read_thumbnails(run.samples / entry["file"])]))
    contact_sheet(run.samples / "contact_sheet.png", rows)


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as aside:
        aside.write_text(text)
