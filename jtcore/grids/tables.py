"""The tables of a grid: numbers of every run, means over what is alike, paired differences."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from jtcore.grids.contrasts import Contrast, Factor, compared, factors, ordered, told
from jtcore.grids.effects import Statement
from jtcore.grids.grid import Grid
from jtcore.grids.readings import Reading
from jtcore.report import markdown_table
from jtcore.statistics import Interval, mean_interval, student

BASE = "base model"
INTERVAL = "95 % interval (Student's t)"
STATES = ("finished", "failed", "interrupted", "running", "waiting")

Row = Mapping[str, Interval]  # by number


@frozen
class Table:
    """Columns of intervals, by heading."""

    title: str
    columns: Mapping[str, Row]
    sign: str = ""  # "+" of differences
    pooled: bool = True  # whether a number may stand on several runs

    def lines(self, names: Sequence[str]) -> Iterator[str]:
        """A row for each name that some column has; what another lacks is left empty."""
        yield f"{self.title}\n"
        rows = [
            [name, *(self.shown(c[name]) if name in c else "" for c in self.columns.values())]
            for name in names
            if any(name in column for column in self.columns.values())
        ]
        yield from markdown_table(["", *self.columns], rows)

    def shown(self, found: Interval) -> str:
        """With on how many values it stands; where these are all the same, they bound nothing."""
        told = f"{found.estimate:{self.sign}.4f}"
        if found.count > 1 and found.low == found.high:
            return f"{told} (all {found.count})"
        if found.is_bounded:
            return f"{told} ± {(found.high - found.low) / 2:.4f} (n={found.count})"
        return f"{told} (n={found.count})" if self.pooled else told


def csv_text(grid: Grid, readings: Sequence[Reading]) -> str:
    """A row for each run: where it is, how far it came, its levels, its numbers."""
    costs = list(dict.fromkeys(name for reading in readings for name in reading.costs))
    names, text = [*costs, *ordered(readings)], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", *grid.axes, *names])
    for each in readings:
        levels = (told(each.trial.point[axis]) for axis in grid.axes)
        found = {**each.costs, **each.numbers}
        numbers = (found.get(name, "") for name in names)
        writer.writerow([each.trial.folder, each.state, *levels, *numbers])
    return text.getvalue()


def markdown(grid: Grid, readings: Sequence[Reading], statements: Sequence[Statement]) -> str:
    """What a grid says: what mattered, the tables of each factor, and what is not there."""
    lines = [f"# {grid.title}", "", counted(readings)]
    if statements:
        lines += ["", "## What mattered", "", *map(str, statements)]
    names = ordered(readings)
    for factor in factors(grid) or [compared(grid)]:
        lines += ["", f"## {factor.name or 'All runs'}"]
        for table in tables(Contrast.of(factor, grid, readings)):
            lines += ["", *table.lines(names)]
    if unfinished := not_finished(readings):
        lines += ["", "## Not finished", "", *markdown_table(["run", "state", "why"], unfinished)]
    return "\n".join(lines) + "\n"


def brief(grid: Grid, readings: Sequence[Reading], statements: Sequence[Statement]) -> str:
    """What a terminal is told: means of the compared factor, and what mattered."""
    table = next(tables(Contrast.of(compared(grid), grid, readings)), None)
    measured = list(dict.fromkeys(name for reading in readings for name in reading.measures))
    lines = [*table.lines(measured), ""] if table and measured else []
    lines += [*map(str, statements), ""] if statements else []
    return "\n".join([*lines, counted(readings)])


def counted(readings: Sequence[Reading]) -> str:
    """How many runs have come how far."""
    counts = Counter(reading.state for reading in readings)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(readings)} run{'s' * (len(readings) != 1)}: {states}."


def not_finished(readings: Sequence[Reading]) -> list[list[str]]:
    """Run, state and why, of those that failed first."""
    left = [each for each in readings if each.state != "finished"]
    left.sort(key=lambda each: each.state != "failed")
    return [[r.trial.folder, r.state, "; ".join(r.problems).replace("|", "\\|")] for r in left]


def tables(contrast: Contrast) -> Iterator[Table]:
    """Means, changes from the base model, and differences to the reference level."""
    factor, over = contrast.factor, contrast.over
    each = dict(enumerate(factor.names or [""]))
    base = base_model(contrast)
    title = f"Mean ± {INTERVAL} over {over}" if over else "Every run"
    if base:
        title += "; of the base model over " + ("videos" if over in ("", "seeds") else over)
    means = {name or "all runs": intervals(contrast.means(level)) for level, name in each.items()}
    yield Table(f"{title}.", base | means, pooled=bool(over))
    changes = {name: intervals(contrast.changes(level)) for level, name in each.items()}
    if any(changes.values()):
        of = f"mean over {over} ± 95 % interval" if over else "of every run"
        yield Table(
            f"Change from the base model, prompt by prompt: {of}.", changes, "+", bool(over)
        )
    if len(factor.levels) > 1:
        yield differences(contrast, factor.reference)


def differences(contrast: Contrast, reference: int) -> Table:
    """Of all other levels to one."""
    factor = contrast.factor
    others = {n: level for level, n in enumerate(factor.names) if level != reference}
    title = f"Difference to {factor.names[reference]}, {paired(contrast)}."
    if odd := [name for name, lv in others.items() if contrast.differs_in_base(lv, reference)]:
        title += f" {other_base(factor, reference, odd)}"
    columns = {
        name: intervals(contrast.differences(level, reference)) for name, level in others.items()
    }
    return Table(title, columns, "+", bool(contrast.over))


def paired(contrast: Contrast) -> str:
    """Between which runs differences are."""
    if not contrast.over:
        return "run by run"
    return f"of runs alike in all else: mean over {contrast.over} ± {INTERVAL}"


def other_base(factor: Factor, reference: int, odd: Sequence[str]) -> str:
    """Why differences are not of the metrics themselves."""
    return (
        f"The base model of {', '.join(odd)} measures otherwise than that of"
        f" {factor.names[reference]}: they were asked different things, or are of another backbone;"
        " of metrics, changes from the base model are compared."
    )


def intervals(values: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    return {name: mean_interval(each) for name, each in values.items()}


def base_model(contrast: Contrast) -> dict[str, Row]:
    """The base model's column; none where runs of a cell asked it different things."""
    cells: dict[tuple[int, ...], dict[str, Mapping[str, float]]] = {}
    for (_, (cell, _)), reading in contrast.runs.items():
        known = cells.setdefault(cell, {})
        for name, value in reading.base.items():
            if known.setdefault(name, value) != value:
                return {}
    names = dict.fromkeys(name for known in cells.values() for name in known)
    each = {name: [known[name] for known in cells.values() if name in known] for name in names}
    if len(cells) == 1:
        each = {name: _over_videos(value) for name, (value,) in each.items()}
    else:
        each = {name: mean_interval([v["mean"] for v in values]) for name, values in each.items()}
    return {BASE: each} if each else {}


def _over_videos(value: Mapping[str, float]) -> Interval:
    if "deviation" not in value:  # measured by jt-eval
        return mean_interval([value["mean"]])
    return student(value["mean"], value["deviation"], value["videos"])
