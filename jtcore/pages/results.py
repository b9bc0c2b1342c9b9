"""The page of a run, of its evaluation, and of several runs side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from os.path import relpath
from pathlib import Path
from typing import Any

from jtcore.files import write_text
from jtcore.pages.contents import Contents, Numbers, Shot, Trained, of_evaluation, of_run
from jtcore.pages.curves import together
from jtcore.pages.html import Cell, Shown, folded, frame, row, table
from jtcore.pages.media import RULE, Medium, embed, share
from jtcore.pages.plots import curve_plot, intervals, legend, number, stroke
from jtcore.pages.rows import reach_rows, validation_rows

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
FIRST = ("loss", "validation")  # in the names of curves that are not folded


def write_run_page(folder: Path) -> Path:
    """Write `report.html` into a run's folder, of what the run left there and, where there is one,
    its `evaluation/evaluation.json`. Returns its path. Raises JtError where a file is damaged."""
    return _write(folder / "report.html", of_run(folder))


def write_evaluation_page(file: Path, runs: Mapping[str, Path]) -> Path:
    """Write `report.html` beside an evaluation.json of any videos; `runs` are the folders, by name,
    whose training it shows. Returns its path. Raises JtError where a file is damaged."""
    return _write(file.parent / "report.html", of_evaluation(file, runs))


def _write(path: Path, contents: Contents) -> Path:
    styles, scripts = ["page.css"], ["together.js", "tables.js", "report.js"]
    body = _body(contents, path.parent)
    page = frame(contents.title, styles, scripts, body, contents.enlarged)
    write_text(path, "\n".join(page) + "\n")
    return path


def _body(contents: Contents, folder: Path) -> Iterator[str]:
    yield f"<h1>{escape(contents.title)}</h1><p>{escape(contents.told[0])}</p>"
    yield f"<p><code>{escape(contents.told[1])}</code></p>"
    yield "".join(_links(contents))
    for order, numbers in enumerate(contents.numbers):
        yield from _numbers(numbers, contents.models, f"numbers{order}")
    yield from _videos(contents, folder)
    yield from _curves(contents.runs)
    for name, run in contents.runs.items():
        yield from _training(name, run)
    yield from _values(contents.shots)
    yield from _identities(contents.numbers)
    for name, run in contents.runs.items():
        if run.recipe:
            yield from folded(_of("Recipe, resolved", name), [f"<pre>{escape(run.recipe)}</pre>"])


def _links(contents: Contents) -> Iterator[str]:
    """To the sections."""
    places = {f"numbers{order}": numbers.title for order, numbers in enumerate(contents.numbers)}
    places |= {"videos": "Videos"} if contents.shots else {}
    places |= {"training": "Training"} if any(r.curves for r in contents.runs.values()) else {}
    links = (f"<a href='#{place}'>{escape(name)}</a>" for place, name in places.items())
    yield from ("<nav>", *links, "</nav>")


def _numbers(numbers: Numbers, models: Sequence[str], place: str) -> Iterator[str]:
    """What is missing, a plot for each value, and the numbers."""
    yield f"<h2 id='{place}'>{escape(numbers.title)}</h2>"
    if numbers.missing:
        told = (f"<li>{escape(n)}: {escape(why)}</li>" for n, why in numbers.missing.items())
        yield f"<div class='missing'>Not measured:<ul>{''.join(told)}</ul></div>"
    models = [model for model in models if model in numbers.summary]
    names = list(dict.fromkeys(name for model in models for name in numbers.summary[model]))
    if not names:
        return
    yield from legend(models)
    yield "<div class='cards'>"
    yield from (_card(numbers, name, models) for name in names)
    yield "</div>"
    yield "<p class=note>Means over n videos, with 95 % intervals of a bootstrap over prompts.</p>"
    header = ["metric", *models]
    yield from table(header, (_summary_row(numbers, name, models) for name in names))
    if numbers.paired:
        yield "<h3>Paired differences</h3>"
        yield (
            "<p class='note'>On the same prompts and seeds, with 95 % intervals of a bootstrap over"
            " prompts. A pair is won by the better value (↑ higher, ↓ lower); where neither is"
            " better, by the higher one. A tie is half a win.</p>"
        )
        yield from table(PAIRED, (_paired_row(numbers, each) for each in numbers.paired))
    if numbers.average:
        yield from _average(numbers.average)


PAIRED = ("metric", "of", "difference", "win rate", "won", "tied", "lost", "pairs")


def _card(numbers: Numbers, name: str, models: Sequence[str]) -> str:
    rows = [
        (model, order, value["mean"], value["low"], value["high"])
        for order, model in enumerate(models)
        if (value := numbers.summary[model].get(name))
    ]
    title = escape(_headed(numbers, name))
    return f"<div class='card'><h3>{title}</h3>{intervals(name, rows)}</div>"


def _headed(numbers: Numbers, name: str) -> str:
    """With which way is better; "steadiness" says as much as "steadiness.steadiness"."""
    metric, _, value = name.partition(".")
    return (metric if metric == value else name) + ARROWS[numbers.better(name)]


def _summary_row(numbers: Numbers, name: str, models: Sequence[str]) -> list[Cell]:
    cells = (_estimate(numbers.summary[model].get(name)) for model in models)
    return [Cell(_headed(numbers, name), name), *cells]


def _estimate(value: Mapping[str, float] | None) -> Cell:
    if value is None:
        return Cell("", "")
    note = f"{_bounds(value)} n={value['videos']}".lstrip()
    return Cell(number(value["mean"]), value["mean"], note)


def _bounds(value: Mapping[str, float]) -> str:
    """Nothing where a single value bounds nothing; values that are alike bound nothing either."""
    if value["low"] is None:
        return ""
    if value["low"] == value["high"]:
        return "no spread"
    return f"[{number(value['low'])}, {number(value['high'])}]"


def _paired_row(numbers: Numbers, each: Mapping[str, Any]) -> list[Cell]:
    difference = Cell(f"{each['difference']:+.4g}", each["difference"], _bounds(each))
    rate = {key: each[f"win_rate_{key}"] for key in ("low", "high")}
    won = Cell(f"{each['win_rate']:.2f}", each["win_rate"], _bounds(rate))
    counts = (Cell(str(each[key])) for key in ("wins", "ties", "losses", "pairs"))
    name = Cell(_headed(numbers, each["value"]), each["value"])
    return [name, Cell(f"{each['one']} − {each['other']}"), difference, won, *counts]


def _average(average: Mapping[str, Any]) -> Iterator[str]:
    yield "<h3>Average-Score</h3>"
    rows = average["models"].items()
    yield from table(["model", "Average-Score"], ([Cell(m), _value(v)] for m, v in rows))
    yield f"<p class='note'>{escape(', '.join(average['of']))}: {escape(average['warning'])}.</p>"


def _videos(contents: Contents, folder: Path) -> Iterator[str]:
    """For each prompt and seed a row of all models, beside the references."""
    if not contents.shots:
        return
    room = share(len(contents.shots) + len(contents.references))
    media = {file: _medium(file, room) for file in contents.references}
    references = [Shown(told, media[file]) for file, told in contents.references.items()]
    yield "<section><h2 id='videos'>Videos</h2>"
    yield TOOLS
    yield "<div class='beside'><div class='references'>"
    if references:
        yield f"<h3>References{', as training sees them' if contents.framed else ''}</h3>"
        yield row(references)
    yield "</div><div>"
    previews = 0
    for prompt, shots in groupby(_in_order(contents.shots), lambda shot: shot.prompt):
        yield f"<section class='prompt'><h3>{escape(prompt)}</h3>"
        for seed, same in groupby(shots, lambda shot: shot.seed):
            shown = [_shown(shot, seed, room, folder) for shot in same]
            previews += sum(each.medium is not None and each.medium.is_preview for each in shown)
            yield row(shown)
        yield "</section>"
    yield "</div></div>"
    counted = f"Here, {previews} of {len(contents.shots)} are previews."
    yield f"<p class='note'>{escape(RULE)} {counted}</p></section>"


TOOLS = (
    "<div class='tools'><button type='button' id='all' data-plays='yes'>Pause all</button>"
    "<label>Speed <select id='speed'><option value='1'>1×</option><option value='0.5'>½×</option>"
    "<option value='0.25'>¼×</option></select></label>"
    "<label>Prompt <input id='find' type='search' placeholder='has the words'></label></div>"
)


def _shown(shot: Shot, seed: int | None, room: int, folder: Path) -> Shown:
    caption = shot.model if seed is None else f"{shot.model}, seed {seed}"
    return Shown(caption, _medium(shot.file, room), relpath(shot.file, folder))


def _medium(file: Path, room: int) -> Medium | None:
    """None where somebody has deleted it."""
    return embed(file, room) if file.is_file() else None


def _in_order(shots: Sequence[Shot]) -> list[Shot]:
    """By prompt and seed, both as they first come."""
    prompts = dict.fromkeys(shot.prompt for shot in shots)
    order = {prompt: place for place, prompt in enumerate(prompts)}
    seeds = {key: place for place, key in enumerate(dict.fromkeys(map(_asked, shots)))}
    return sorted(shots, key=lambda shot: (order[shot.prompt], seeds[_asked(shot)]))


def _asked(shot: Shot) -> tuple[str, int | None]:
    return shot.prompt, shot.seed


def _curves(runs: Mapping[str, Trained]) -> Iterator[str]:
    """Losses open, all others folded."""
    found = together({name: run.curves for name, run in runs.items()})
    if not found:
        return
    yield "<h2 id='training'>Training</h2>"
    if len(runs) > 1:
        yield from legend(list(runs), stroke)
    order = {name: place for place, name in enumerate(runs)}
    plots = {
        tag: curve_plot(tag, {name: (order[name], curve) for name, curve in curves.items()})
        for tag, curves in found.items()
    }
    cards = {
        tag: f"<div class='card'><h3>{escape(tag)}</h3>{plot}</div>" for tag, plot in plots.items()
    }
    first = [card for tag, card in cards.items() if any(word in tag for word in FIRST)]
    others = [card for tag, card in cards.items() if not any(word in tag for word in FIRST)]
    yield f"<div class='cards'>{''.join(first)}</div>"
    if others:
        yield from folded("More curves", [f"<div class='cards'>{''.join(others)}</div>"])


def _training(name: str, run: Trained) -> Iterator[str]:
    """Tables of what a run said of its training."""
    headings = {
        "Diffusion loss on held-out files, same noise": validation_rows(run.results),
        "Adapters, and the modules of the denoiser that they reach": reach_rows(run.results),
    }
    for heading, (header, rows) in headings.items():
        if rows:
            yield f"<h2>{escape(_of(heading, name))}</h2>"
            yield from table(header, ([_plain(cell) for cell in cells] for cells in rows))


def _plain(text: str) -> Cell:
    """Sorted by the number that a text begins with, where it does."""
    try:
        return Cell(text, float(text.split(" ")[0].replace(",", "")))
    except ValueError:
        return Cell(text)


def _values(shots: Sequence[Shot]) -> Iterator[str]:
    """Every video's values, folded."""
    names = list(dict.fromkeys(name for shot in shots for name in shot.values))
    if not names:
        return
    rows = (
        [
            Cell(shot.prompt, is_long=True),
            Cell("" if shot.seed is None else str(shot.seed)),
            Cell(shot.model),
            *(_value(shot.values.get(name)) for name in names),
        ]
        for shot in shots
    )
    lines = table(["prompt", "seed", "model", *names], rows)
    yield from folded(f"Values of all {len(shots)} videos", lines)


def _value(value: float | None) -> Cell:
    return Cell("", "") if value is None else Cell(number(value), value)


def _identities(every: Sequence[Numbers]) -> Iterator[str]:
    """What the numbers depend on, folded."""
    for numbers in every:
        if numbers.metrics:
            lines = [_identity(name, told) for name, told in numbers.metrics.items()]
            yield from folded("What the metrics are: identities", lines)


def _identity(name: str, told: Mapping[str, Any]) -> str:
    text = json.dumps(told.get("identity") or {}, indent=2, ensure_ascii=False)
    head = f"{name}: {told['kind']}, identity {(told.get('hash') or 'unknown')[:8]}"
    return f"<h3>{escape(head)}</h3><pre>{escape(text)}</pre>"


def _of(heading: str, name: str) -> str:
    return f"{heading}: {name}" if name else heading
