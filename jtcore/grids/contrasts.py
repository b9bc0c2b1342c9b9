"""Levels of a grid's axes held against each other: means over all else, and paired differences.

Runs that differ in nothing but the compared axis and their seed are a cell's. Where a grid has
several cells, such as subjects and motions, runs are no independent draws: those of a cell share
its task, and those of a seed share all that training draws. So it is cells, seeds of each averaged,
or seeds, cells of each averaged, whichever tell less.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import prod

from attrs import frozen

from jtcore.grids.axes import SEED, Label, Point, same
from jtcore.grids.grid import Grid
from jtcore.grids.readings import Numbers, Reading
from jtcore.statistics import ROUNDING, mean_interval

Key = tuple[tuple[int, ...], Label | None]  # cell, as the levels of all other factors, and seed
Values = Mapping[Key, float]  # of one number and one level


@frozen
class Factor:
    """An axis, or several that move together."""

    axes: tuple[str, ...]
    levels: tuple[tuple[Label, ...], ...]  # for each level, of each axis
    reference: int = 0

    @property
    def name(self) -> str:
        return " + ".join(self.axes)

    @property
    def names(self) -> list[str]:
        return [", ".join(map(told, level)) for level in self.levels]

    @property
    def numeric(self) -> list[float] | None:
        """Its levels, where they are numbers."""
        alone = [level[0] for level in self.levels]
        plain = all(isinstance(each, int | float) and not isinstance(each, bool) for each in alone)
        return [float(each) for each in alone] if plain and len(self.axes) == 1 else None

    def at(self, point: Point) -> int:
        """Which of its levels a run has."""
        own = [point[axis] for axis in self.axes]
        return next(i for i, level in enumerate(self.levels) if all(map(same, level, own)))


def told(label: Label) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def factors(grid: Grid) -> list[Factor]:
    """All that varies in a grid but its seed, in order."""
    return [each for each in _all(grid) if len(each.levels) > 1]


def compared(grid: Grid) -> Factor:
    """What a grid is about: the first factor of several levels, else the first."""
    return next(iter([*factors(grid), *_all(grid)]), Factor((), ((),)))


def _all(grid: Grid) -> Iterator[Factor]:
    """With axes of one level too. What moves with the seed is the seed."""
    groups = {axis: group for group in grid.zipped for axis in group}
    for group in dict.fromkeys(groups.get(axis, (axis,)) for axis in grid.axes):
        if SEED not in group:
            levels = tuple(zip(*(grid.axes[axis] for axis in group), strict=True))
            wanted = Factor(group, levels).at(grid.reference)
            yield Factor(group, levels, wanted)


@frozen(eq=False)
class Contrast:
    """One factor of a grid, and what its runs have said."""

    factor: Factor
    others: tuple[Factor, ...]
    runs: Mapping[tuple[int, Key], Reading]
    seeds: int

    @classmethod
    def of(cls, factor: Factor, grid: Grid, readings: Iterable[Reading]) -> "Contrast":
        others = tuple(each for each in factors(grid) if each.axes != factor.axes)
        runs = {}
        for reading in readings:
            point = reading.trial.point
            cell = tuple(other.at(point) for other in others)
            runs[factor.at(point), (cell, point.get(SEED))] = reading
        return cls(factor, others, runs, len(grid.axes.get(SEED, ())))

    @property
    def over(self) -> str:
        """What means and intervals are over."""
        if not self._has_cells:
            return "seeds" if self.seeds > 1 else ""
        cells = " × ".join(other.name for other in self.others)
        return f"{cells}, or over seeds where these say less" if self.seeds > 1 else cells

    @property
    def measures(self) -> set[str]:
        """What results are measured by."""
        return {name for reading in self.runs.values() for name in reading.measures}

    @property
    def _has_cells(self) -> bool:
        return prod(len(other.levels) for other in self.others) > 1

    def means(self, level: int) -> dict[str, list[float]]:
        """All numbers of a level."""
        return self._units(level, lambda reading: reading.numbers)

    def changes(self, level: int) -> dict[str, list[float]]:
        """How far adapted models are from their base model."""
        return self._units(level, lambda reading: reading.change)

    def differences(self, level: int, reference: int) -> dict[str, list[float]]:
        """Of a level to another, between runs that are alike in all else, where both have come.

        Where base models measure differently, runs were asked different things, or another backbone
        was: then it is changes from the base model that are compared.
        """
        ones, others = (dict(self._of(which)) for which in (level, reference))
        found: dict[str, dict[Key, float]] = {}
        for key in ones.keys() & others.keys():
            for name, value in _differences(ones[key], others[key]).items():
                found.setdefault(name, {})[key] = value
        names = dict.fromkeys(name for one in ones.values() for name in one.numbers)
        return {name: self.pooled(found[name]) for name in names if name in found}

    def by_cell(self, level: int) -> dict[str, dict[Key, float]]:
        """All measures of a level."""
        return self._values(level, lambda reading: reading.measures)

    def differs_in_base(self, level: int, reference: int) -> bool:
        """Whether some pair's base models measure differently."""
        ones, others = (dict(self._of(which)) for which in (level, reference))
        return any(
            not _alike(one[name]["mean"], other[name]["mean"])
            for key in ones.keys() & others.keys()
            for one, other in [(ones[key].base, others[key].base)]
            for name in one.keys() & other.keys()
        )

    def pooled(self, values: Values) -> list[float]:
        """Means that can stand for draws: of each cell, or of each seed where these leave the wider
        interval and all cells have the same; with a single cell, seeds. In one order."""
        if not self._has_cells:
            return [value for _, value in sorted(values.items(), key=lambda item: str(item[0]))]
        cells, seeds = _means(values, 0), _means(values, 1)
        if len(seeds) > 1 and len(cells) * len(seeds) == len(values):
            return max((cells, seeds), key=_width)
        return cells

    def _of(self, level: int) -> Iterator[tuple[Key, Reading]]:
        return ((key, run) for (at, key), run in self.runs.items() if at == level)

    def _units(self, level: int, numbers) -> dict[str, list[float]]:
        return {n: self.pooled(values) for n, values in self._values(level, numbers).items()}

    def _values(self, level: int, numbers) -> dict[str, dict[Key, float]]:
        found: dict[str, dict[Key, float]] = {}
        for key, reading in self._of(level):
            for name, value in numbers(reading).items():
                found.setdefault(name, {})[key] = value
        return found


def _means(values: Values, part: int) -> list[float]:
    """For each cell (`part` 0) or each seed (1) of the keys."""
    groups: dict[Hashable, list[float]] = {}
    for key, value in sorted(values.items(), key=lambda item: str(item[0])):
        groups.setdefault(key[part], []).append(value)
    return [sum(each) / len(each) for each in groups.values()]


def _width(values: Sequence[float]) -> float:
    found = mean_interval(values)
    return found.high - found.low


def _differences(one: Reading, other: Reading) -> Numbers:
    ones, others, found = one.numbers, other.numbers, {}
    for name in ones.keys() & others.keys():
        moved = 0.0
        if name in one.base and name in other.base:
            moved = _apart(one.base[name]["mean"], other.base[name]["mean"])
        found[name] = _apart(ones[name], others[name]) - moved
    return found


def _apart(one: float, other: float) -> float:
    """`one` - `other`, where that is not rounding."""
    return 0.0 if _alike(one, other) else one - other


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= ROUNDING * max(abs(one), abs(other))


def ordered(readings: Sequence[Reading]) -> list[str]:
    """The names of all numbers: what was measured first, then what adapters say."""
    measures = [name for reading in readings for name in reading.measures]
    return list(dict.fromkeys([*measures, *(n for r in readings for n in r.details)]))
