"""One axis of a grid on its page: means of its levels, and differences to any of them."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import isfinite

from jtcore.grids.contrasts import Contrast, Factor
from jtcore.grids.effects import SURE, Effect, effects
from jtcore.grids.shown import Shown
from jtcore.grids.tables import base_model, other_base, paired
from jtcore.pages.html import Cell, table
from jtcore.pages.plots import Row, intervals, legend, number
from jtcore.statistics import Interval, mean_interval

MOST = 20  # levels: where there are more, differences are to the grid's reference alone


def level_section(shown: Shown, factor: Factor, place: str) -> Iterator[str]:
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
