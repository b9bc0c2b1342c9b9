"""The report of a run: numbers in a table, videos of base and adapted model side by side."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from textwrap import indent
from typing import Any

from safetensors import safe_open

from jtcore.data import Data, reference_files
from jtcore.decode import timeline
from jtcore.files import write_text
from jtcore.framing import fit
from jtcore.media import SHORT_SIDE, contact_sheet, read_thumbnails, write_video
from jtcore.pages.contents import FACTS
from jtcore.pages.results import write_run_page
from jtcore.pages.rows import metric_rows, reach_rows, validation_rows
from jtcore.recipe import Recipe, Sampling
from jtcore.run import Run

SHOWN = {"image": 8, "video": 2}  # reference files of a stream
FRAMES = 16  # of a reference, at most

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, header, rows
Pair = Sequence[Mapping[str, Any]]  # entries of samples: one prompt and seed, each model


def write_report(run: Run, recipe: Recipe) -> None:
    """Write `report.md`, `report.html`, `report.json` with what only the report says, and, where
    videos were sampled, `samples/references` and `samples/contact_sheet.png`."""
    results = run.read_json("metrics.json")
    title = recipe.title or run.folder.name
    facts, command = _circumstances(run, recipe), shlex.join(run.read_json("run.json")["command"])
    tables, pairs = list(_tables(results)), _pairs(results.get("samples", []))
    references = {}
    if pairs:
        references = _write_references(run, recipe)
        _write_contact_sheet(run, recipe, pairs)
    lines = _markdown(title, facts, command, tables, pairs)
    write_text(run.folder / "report.md", "\n".join(lines) + "\n")
    enlarged = recipe.sample is not None and min(recipe.sample.size) < SHORT_SIDE
    told = {"title": title, "facts": facts, "command": command, "enlarged": enlarged}
    run.write_json(FACTS, told | {"references": references})
    write_run_page(run.folder)


def _circumstances(run: Run, recipe: Recipe) -> str:
    names = {name for stage in recipe.stage.values() for name in stage.trained}
    trained = sum(_count_numbers(run.adapter_file(name)) for name in names)
    facts = f"Training seed {recipe.seed}, steps {recipe.steps:,}, trained parameters {trained:,}"
    sampled = ", ".join(_unusual(recipe.sample)) if recipe.sample else ""
    return f"{facts}. Samples: {sampled}" if sampled else facts


def _unusual(settings: Sampling) -> Iterator[str]:
    """What one would not expect of the samples."""
    if settings.scheduler:
        yield f"scheduler {settings.scheduler}"
    if settings.dynamic_guidance:
        yield "dynamic guidance"
    if settings.batch > 1:
        yield f"batches of {settings.batch}"
    if prior := settings.noise_prior:
        yield f"noise that is {prior.share:.0%} of {prior.video}"
    if offset := settings.noise:
        yield f"noise with {offset.std:g} that is alike along {' and '.join(offset.shared)}"
    for name, schedule in settings.schedule.items():
        factors, at = (", ".join(f"{n:g}" for n in each) for each in (schedule.scales, schedule.at))
        on = "" if schedule.on == "both" else f" on the {schedule.on} half"
        yield f"scale of {name} times {factors} parted at {schedule.unit} {at}{on}"


def _count_numbers(path: Path) -> int:
    """In all tensors of a file, of which only the header is read."""
    with safe_open(path, "pt") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dict


def _pairs(samples: Pair) -> list[Pair]:
    """Base and adapted model's entries together, in order of prompt and seed."""
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for entry in samples:
        pairs.setdefault(Path(entry["file"]).name, []).append(entry)
    return list(pairs.values())


def _tables(results: Mapping[str, Any]) -> Iterator[Table]:
    adapters = ("Adapters, and the modules of the denoiser that they reach", *reach_rows(results))
    losses = ("Diffusion loss on held-out files, same noise", *validation_rows(results))
    metrics = ("Metrics of the samples, mean ± deviation over videos", *metric_rows(results))
    return (table for table in (losses, metrics, adapters) if table[2])


def _markdown(
    title: str, facts: str, command: str, tables: Sequence[Table], pairs: Sequence[Pair]
) -> Iterator[str]:
    yield f"# {title}\n\n{facts}\n\n{indent(command, '    ')}"
    for heading, header, rows in tables:
        yield f"\n## {heading}\n"
        yield from markdown_table(header, rows)
    if pairs:
        yield "\n## Samples\n\n![references, base and adapted model](samples/contact_sheet.png)\n"
    for pair in pairs:
        for entry in pair:
            file = f"samples/{entry['file']}"
            yield f"- {entry['model']}, seed {entry['seed']}: [{entry['prompt']}]({file})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _references(recipe: Recipe) -> Iterator[tuple[str, Data, list[Path]]]:
    """The streams that are trained on and not validated on, and the files of each to show."""
    held_out = recipe.validation.data if recipe.validation else ()
    for name, data in recipe.used_data.items():
        if name not in held_out:
            yield name, data, reference_files(data)[: SHOWN[data.medium]]


def _write_references(run: Run, recipe: Recipe) -> dict[str, str]:
    """Copies for browsers, at the speed of the original, or 1 frame/s; their captions by file."""
    captions = {}
    for name, data, paths in _references(recipe):
        for number, path in enumerate(paths):
            frames = 1 if data.medium == "image" else FRAMES
            pixels = (read_thumbnails(path, frames) * 255).round().byte()
            video = fit(pixels, data.size).float() / 255
            fps = max(video.shape[1] / (timeline(path).seconds or 1), 1)
            file = f"references/{name}-{number:02d}.mp4"
            write_video(run.samples / file, video, fps)
            captions[file] = f"{name}: {path.name}"
    return captions


def _write_contact_sheet(run: Run, recipe: Recipe, pairs: Sequence[Pair]) -> None:
    """References above, clips in rows of their own; then base and adapted for each prompt and
    seed."""
    rows = []
    for name, data, paths in _references(recipe):
        if data.medium == "image":
            rows.append((f"reference: {name}", [read_thumbnails(path) for path in paths]))
        else:
            labels = [f"reference: {name}, {path.name}" for path in paths]
            rows += zip(labels, ([read_thumbnails(path)] for path in paths), strict=True)
    for entry in (entry for pair in pairs for entry in pair):
        label = f"{entry['model']}, seed {entry['seed']}: {entry['prompt']}"
        rows.append((label, [read_thumbnails(run.samples / entry["file"])]))
    contact_sheet(run.samples / "contact_sheet.png", rows)
