"""The page of a grid: what mattered, numbers of every level, videos in a matrix, curves, runs.

It holds all numbers and curves. Videos lie beside it in the folders of the runs: of a grid there
are thousands, which no page can hold.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import isfinite, isnan
from pathlib import Path
from urllib.parse import quote

from attrs import frozen

from jtcore.files import write_text
from jtcore.grids.contrasts import Contrast, Factor, compared, factors, ordered, told
from jtcore.grids.effects import SURE, Effect, Effects, Statement, effects
from jtcore.grids.grid import Grid
from jtcore.grids.kept import Kept, keep
from jtcore.grids.matrix import as_json, is_enlarged, matrix
from jtcore.grids.readings import Reading, brief_name
from jtcore.grids.tables import base_model, counted, other_base, paired
from jtcore.pages.curves import Curve, together
from jtcore.pages.html import BESIDE, Cell, folded, frame, safe_json, table
from jtcore.pages.plots import Row, bundle_plot, intervals, legend, number, stroke
from jtcore.pages.results import ARROWS
from jtcore.statistics import Interval, mean_interval

PAGE = "grid.html"
MOST = 20  # levels: where there are more, differences are to the grid's reference alone


@frozen(eq=False)
class Shown:
    """All that a page is made of."""

    folder: Path
    grid: Grid
    readings: Sequence[Reading]
    found: Sequence[Effects]
    statements: Sequence[Statement]

    @property
    def factors(self) -> list[Factor]:
        return factors(self.grid) or [compared(self.grid)]

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.readings for name in each.measures))

    def headed(self, name: str) -> str:
        """With which way is better."""
        better = next((r.better[name] for r in self.readings if name in r.better), None)
        return brief_name(name) + ARROWS[better]


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
        yield from _factor(shown, factor, f"factor{place}")
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


def _factor(shown: Shown, factor: Factor, place: str) -> Iterator[str]:
    """Means of its levels, and differences to the level that is chosen."""
    contrast = Contrast.of(factor, shown.grid, shown.readings)
    names = factor.names if factor.axes else ["all runs"]
    rows = {
        name: {m: mean_interval(v) for m, v in contrast.means(level).items()}
        for level, name in enumerate(names)
    }
    rows |= base_model(contrast)
    measures = [name for name in shown.measures if any(name in row for row in rows.values())]
    if not measures:
        return
    yield f"<h2 id='{place}'>{escape(factor.name or 'All runs')}</h2>"
    over = contrast.over
    yield f"<p class='note'>{_told_of_means(over)}</p>" if over else ""
    yield from legend(list(rows))
    yield "<div class='cards'>"
    for name in measures:
        yield _card(shown.headed(name), rows, name)
    yield "</div>"
    header = [factor.name or "", *map(shown.headed, measures)]
    yield from table(header, ([Cell(n), *_estimates(row, measures)] for n, row in rows.items()))
    if len(factor.levels) > 1:
        yield from _differences(shown, contrast, measures)


def _told_of_means(over: str) -> str:
    return escape(f"Means over {over}, with 95 % intervals (Student's t) and on how many they are.")


def _card(title: str, rows: Mapping[str, Mapping[str, Interval]], name: str) -> str:
    drawn: list[Row] = []
    for order, (level, row) in enumerate(rows.items()):
        if name in row and isfinite(row[name].estimate):
            own = row[name]
            bounds = (own.low, own.high) if own.is_bounded else (None, None)
            drawn.append((level, order, own.estimate, *bounds))
    plot = intervals(name, drawn) if drawn else ""
    return f"<div class='card'><h3>{escape(title)}</h3>{plot}</div>"


def _estimates(row: Mapping[str, Interval], measures: Sequence[str]) -> Iterator[Cell]:
    for name in measures:
        found = row.get(name)
        yield Cell(number(found.estimate), found.estimate, _note(found)) if found else Cell("", "")


def _note(found: Interval) -> str:
    if found.count > 1 and found.low == found.high:
        return f"all {found.count}"
    bounds = f"[{number(found.low)}, {number(found.high)}] " if found.is_bounded else ""
    return f"{bounds}n={found.count}"


def _differences(shown: Shown, contrast: Contrast, measures: Sequence[str]) -> Iterator[str]:
    """A table for each level that the others may be compared to, of which one is seen."""
    factor = contrast.factor
    offered = range(len(factor.levels)) if len(factor.levels) <= MOST else [factor.reference]
    yield f"<h3>Differences, {escape(paired(contrast))}</h3>"
    yield (
        f"<p class='note'>Bold is what can be told from none at {SURE} over all that is compared"
        " with the same level (Holm's correction); intervals are of each number alone.</p>"
    )
    options = "".join(
        f"<option value='{level}'{' selected' if level == factor.reference else ''}>"
        f"{escape(factor.names[level])}</option>"
        for level in offered
    )
    label = f"<label>Compared to <select class='reference'>{options}</select></label>"
    yield f"<div class='compared'><p class='choice'>{label}</p>"
    for level in offered:
        hidden = "" if level == factor.reference else " hidden"
        yield f"<div class='against' data-level='{level}'{hidden}>"
        yield from _against(shown, contrast, measures, level)
        yield "</div>"
    yield "</div>"


def _against(
    shown: Shown, contrast: Contrast, measures: Sequence[str], reference: int
) -> Iterator[str]:
    factor, found = contrast.factor, effects(contrast, reference)
    cells: dict[str, dict[str, Effect]] = {}
    for each in found.found:
        cells.setdefault(each.level, {})[each.number] = each
    others = [level for level in range(len(factor.levels)) if level != reference]
    if odd := [factor.names[i] for i in others if contrast.differs_in_base(i, reference)]:
        yield f"<p class='note'>{escape(other_base(factor, reference, odd))}</p>"
    header = [f"{factor.name} − {factor.names[reference]}", *map(shown.headed, measures)]
    rows = {level: cells.pop(level, {}) for level in (factor.names[i] for i in others)} | cells
    yield from table(
        header,
        (
            [Cell(level), *(_difference(row.get(name)) for name in measures)]
            for level, row in rows.items()
        ),
    )


def _difference(effect: Effect | None) -> Cell:
    if effect is None:
        return Cell("", "")
    found = effect.difference
    text = f"{found.estimate:+.3g}"
    return Cell(text, found.estimate, _note(found), is_clear=effect.is_clear)


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
