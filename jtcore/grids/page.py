"""The page of a grid: what mattered, numbers of every level, videos in a matrix, curves, runs.

It holds all numbers and curves. Videos lie beside it in the folders of the runs: of a grid there
are thousands, which no page can hold.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import isnan
from pathlib import Path
from urllib.parse import quote

from jtcore.files import write_text
from jtcore.grids.contrasts import Factor, ordered, told
from jtcore.grids.effects import Effect, Effects, Statement
from jtcore.grids.kept import Kept, keep
from jtcore.grids.levels import level_section
from jtcore.grids.matrix import as_json, is_enlarged, matrix
from jtcore.grids.readings import Reading
from jtcore.grids.shown import Shown
from jtcore.grids.tables import counted
from jtcore.pages.curves import Curve, together
from jtcore.pages.html import BESIDE, Cell, folded, frame, safe_json, table
from jtcore.pages.plots import bundle_plot, legend, number, stroke

PAGE = "grid.html"


def write_page(shown: Shown) -> None:
    """Write `grid.html` into a grid's folder."""
    kept = keep(shown.folder, shown.readings)
    videos = matrix(shown.grid, shown.readings, kept)
    text = "\n".join(
        frame(
            shown.grid.title,
            ["page.css", "grid.css"],
            ["together.js", "tables.js", "grid.js"],
            _body(shown, videos and as_json(videos), kept),
            is_enlarged(shown.readings),
            BESIDE,
        )
    )
    write_text(shown.folder / PAGE, text + "\n")


def _body(shown: Shown, videos: str | None, kept: Mapping[str, Kept]) -> Iterator[str]:
    yield f"<h1>{escape(shown.grid.title)}</h1>"
    yield f"<p>{escape(counted(shown.readings))} {escape(Path(shown.grid.file).name)}</p>"
    curves = {run: each.curves for run, each in kept.items()}
    yield from _links(shown, videos is not None, any(curves.values()))
    yield from _failures(shown.readings)
    yield from _statements(shown.statements)
    for place, factor in enumerate(shown.factors):
        yield from level_section(shown, factor, f"factor{place}")
    if videos:
        yield from _videos(videos)
    for factor in shown.factors[:1]:
        yield from _curves(shown, factor, curves)
    yield from _runs(shown)
    yield from _effects(shown.found)


def _links(shown: Shown, videos: bool, curves: bool) -> Iterator[str]:
    places = {"mattered": "What mattered"} if shown.statements else {}
    places |= {f"factor{i}": each.name for i, each in enumerate(shown.factors) if each.axes}
    places |= {"videos": "Videos"} if videos else {}
    places |= {"training": "Training"} if curves else {}
    places |= {"runs": "Runs"}
    links = [f"<a href='#{place}'>{escape(name)}</a>" for place, name in places.items()]
    links += [f"<a href='{name}'>{name}</a>" for name in ("grid.csv", "grid.md")]
    yield from ("<nav>", *links, "</nav>")


def _failures(readings: Sequence[Reading]) -> Iterator[str]:
    failed = [reading for reading in readings if reading.state == "failed"]
    if not failed:
        return
    yield "<div class='missing' id='failed'>Failed:<ul>"
    for each in failed:
        why = "; ".join(each.problems)
        yield f"<li><b>{escape(each.trial.folder)}</b>: {escape(why)}"
        yield f" <span class='note'>{escape(f'{each.kind} {each.at}'.strip())}</span></li>"
    yield "</ul></div>"


def _statements(statements: Sequence[Statement]) -> Iterator[str]:
    if not statements:
        return
    yield "<h2 id='mattered'>What mattered</h2><ul class='statements'>"
    for each in statements:
        parts = "".join(f"<li>{escape(part)}</li>" for part in each.parts)
        yield f"<li><b>{escape(each.heading)}</b><ul>{parts}</ul></li>"
    yield "</ul>"


def _videos(told_of_them: str) -> Iterator[str]:
    yield "<section id='videos'><h2>Videos</h2>"
    yield TOOLS
    yield "<div class='wide' id='matrix'></div>"
    yield (
        "<p class='note'>Videos are files in the folders of the runs: they are seen where this page"
        " lies in the folder of its grid.</p>"
    )
    yield f"<script type='application/json' id='grid'>{safe_json(told_of_them)}</script></section>"


TOOLS = (
    "<div class='tools'><button type='button' id='all' data-plays='yes'>Pause all</button>"
    "<label>Speed <select id='speed'><option value='1'>1×</option><option value='0.5'>½×</option>"
    "<option value='0.25'>¼×</option></select></label><span id='choices'></span>"
    "<label>Prompt <input id='find' type='search' placeholder='has the words'></label></div>"
)


def _curves(
    shown: Shown, factor: Factor, curves: Mapping[str, Mapping[str, Curve]]
) -> Iterator[str]:
    """Losses of all runs, in the colours of the first factor."""
    found = together(curves)
    if not found:
        return
    of = {r.trial.folder: factor.at(r.trial.point) for r in shown.readings}
    names = factor.names if factor.axes else ["all runs"]
    yield "<h2 id='training'>Training</h2>"
    yield (
        "<p class='note'>A thin line is a run, a thick one the smooth mean of a level's runs. All"
        " that training told is in TensorBoard and in the runs' reports.</p>"
    )
    yield from legend(names, stroke)
    yield "<div class='cards'>"
    for tag, by_run in found.items():
        levels: dict[int, list[Curve]] = {}
        for run, curve in by_run.items():
            levels.setdefault(of[run], []).append(curve)
        drawn = {names[level]: (level, each) for level, each in sorted(levels.items())}
        yield f"<div class='card'><h3>{escape(tag)}</h3>{bundle_plot(tag, drawn)}</div>"
    yield "</div>"


def _runs(shown: Shown) -> Iterator[str]:
    """Every run with all its numbers; on paper there are better places for these."""
    costs = list(dict.fromkeys(name for reading in shown.readings for name in reading.costs))
    names = [*costs, *ordered(shown.readings)]
    yield "<section id='all-runs'><h2 id='runs'>Runs</h2>"
    yield from table(
        ["run", "state", *shown.grid.axes, *map(shown.headed, names)],
        (_run(shown, reading, names) for reading in shown.readings),
    )
    yield "</section>"


def _run(shown: Shown, reading: Reading, names: Sequence[str]) -> Iterator[Cell]:
    report = reading.folder / "report.html"
    folder = reading.trial.folder
    yield Cell(folder, link=f"{quote(folder)}/report.html" if report.is_file() else None)
    yield Cell(reading.state)
    for axis in shown.grid.axes:
        level = reading.trial.point[axis]
        yield Cell(told(level), level if isinstance(level, int | float) else None)
    found = {**reading.costs, **reading.numbers}
    for name in names:
        yield Cell(number(found[name]), found[name]) if name in found else Cell("", "")


def _effects(found: Sequence[Effects]) -> Iterator[str]:
    """Every comparison that statements are of, folded."""
    rows = [_effect(each, effect) for each in found for effect in each.found]
    if rows:
        header = ["axis", "level", "against", "number", "difference", "p", "p, Holm", "pairs"]
        yield from folded(f"All {len(rows)} comparisons", table(header, rows))


def _effect(own: Effects, effect: Effect) -> list[Cell]:
    found = effect.difference
    bounds = f"[{found.low:+.3g}, {found.high:+.3g}]" if found.is_bounded else ""
    return [
        Cell(own.factor.name),
        Cell(effect.level),
        Cell(own.reference),
        Cell(effect.number),
        Cell(f"{found.estimate:+.3g}", found.estimate, bounds, is_clear=effect.is_clear),
        _chance(effect.chance),
        _chance(effect.adjusted),
        Cell(str(found.count)),
    ]


def _chance(value: float) -> Cell:
    return Cell("", "") if isnan(value) else Cell(f"{value:.2g}", value)
