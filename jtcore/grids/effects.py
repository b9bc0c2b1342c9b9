"""What mattered: of each axis the differences that can be told from none, in a sentence.

Every level is compared to the reference by every measure, pair by pair. So many tests find
something where nothing is: chances are adjusted over all tests of an axis (Holm).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, isnan, log2

import numpy as np
from attrs import evolve, frozen

from jtcore.grids.contrasts import Contrast, Factor, Key, factors
from jtcore.grids.grid import Grid
from jtcore.grids.readings import Reading
from jtcore.statistics import CONFIDENCE, Interval, by_chance, holm, mean_interval

MOST = 3  # numbers of a level that are told
SURE = f"{CONFIDENCE:.0%}".replace("%", " %")


@frozen
class Effect:
    """How far a level is from the reference, by one measure; or how fast a measure rises."""

    factor: str
    level: str  # or what it rises with
    number: str
    difference: Interval
    chance: float  # that it is as large where the truth is none; nan where there is no such chance
    adjusted: float = float("nan")  # over all of the axis

    @property
    def is_clear(self) -> bool:
        return self.adjusted < 1 - CONFIDENCE

    @property
    def is_alike(self) -> bool:
        """The same in all of several pairs, and not none: there is no interval, nor doubt."""
        found = self.difference
        return found.count > 1 and found.low == found.high != 0


@frozen(eq=False)
class Effects:
    """Those of one axis, the clearest first."""

    factor: Factor
    reference: str
    found: tuple[Effect, ...]
    moved: bool = False  # whether base models of some pairs measure differently

    @property
    def tests(self) -> int:
        return sum(not isnan(each.chance) for each in self.found)


@frozen
class Statement:
    """Of one axis, in words."""

    heading: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"- {self.heading}:", *(f"    - {part}" for part in self.parts)])


def all_effects(grid: Grid, readings: Sequence[Reading]) -> list[Effects]:
    """Of every axis that has several levels, but the seed."""
    return [effects(Contrast.of(f, grid, readings), f.reference) for f in factors(grid)]


def effects(contrast: Contrast, reference: int) -> Effects:
    """Of one axis, against one of its levels."""
    factor, measures = contrast.factor, contrast.measures
    found = [
        Effect(factor.name, name, number, mean_interval(values), by_chance(values))
        for level, name in enumerate(factor.names)
        if level != reference
        for number, values in contrast.differences(level, reference).items()
        if number in measures and all(map(isfinite, values))
    ]
    found += _trends(contrast)
    adjusted = holm([each.chance for each in found])
    found = [evolve(each, adjusted=a) for each, a in zip(found, adjusted, strict=True)]
    found.sort(key=lambda each: (each.is_alike, each.chance if each.chance >= 0 else 2))
    others = (level for level in range(len(factor.levels)) if level != reference)
    moved = any(contrast.differs_in_base(level, reference) for level in others)
    return Effects(factor, factor.names[reference], tuple(found), moved)


def _trends(contrast: Contrast) -> Iterator[Effect]:
    """Of an axis of more than two numbers: the slope of each measure by least squares, cell by cell
    (or seed by seed) where all levels have come; over doublings where all numbers are above 0."""
    levels = contrast.factor.numeric
    if levels is None or len(levels) < 3:
        return
    doubles = min(levels) > 0
    places = [log2(level) for level in levels] if doubles else levels
    found = [contrast.by_cell(level) for level in range(len(levels))]
    for number in found[0]:
        each = [values.get(number, {}) for values in found]
        slopes = contrast.pooled(_slopes(places, each))
        if slopes and all(map(isfinite, slopes)):
            per = "each doubling" if doubles else "each 1"
            interval, chance = mean_interval(slopes), by_chance(slopes)
            yield Effect(contrast.factor.name, per, number, interval, chance)


def _slopes(places: Sequence[float], values: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    x = np.array(places) - np.mean(places)
    shared = set.intersection(*(set(each) for each in values))
    return {
        key: float(x @ np.array([each[key] for each in values]) / (x @ x))
        for key in sorted(shared, key=str)
    }


def statements(found: Sequence[Effects]) -> list[Statement]:
    """A short one for each axis."""
    return [statement(each) for each in found]


def statement(found: Effects) -> Statement:
    """What of an axis can be told from none, level by level, and of how many tests that is."""
    heading = f"{found.factor.name}, against {found.reference}"
    if not found.tests and not any(each.is_alike for each in found.found):
        return Statement(heading, ("nothing can be told: no difference has two pairs to stand on",))
    levels: dict[str, list[Effect]] = {}
    for each in found.found:
        if each.is_clear or each.is_alike:
            levels.setdefault(each.level, []).append(each)
    parts = [_of_level(level, own) for level, own in levels.items()]
    nothing = f"{'nothing else' if parts else 'nothing'} can be told from none at {SURE}"
    return Statement(heading, (*parts, f"{nothing} ({'; '.join(_tests(found))})"))


def _of_level(level: str, own: Sequence[Effect]) -> str:
    changes = ", ".join(f"{each.number} by {_told(each.difference)}" for each in own[:MOST])
    return f"{level} changes {changes}{f' and {len(own) - MOST} more' if len(own) > MOST else ''}"


def _told(found: Interval) -> str:
    if found.low == found.high:
        return f"{found.estimate:+.3g} (in all {found.count} pairs alike)"
    return f"{found.estimate:+.3g} [{found.low:+.3g}, {found.high:+.3g}] ({found.count} pairs)"


def _tests(found: Effects) -> Iterator[str]:
    yield f"{found.tests} comparisons together, by Holm's correction"
    alone = [each for each in found.found if each.chance < 1 - CONFIDENCE and not each.is_clear]
    if alone:
        luck = found.tests * (1 - CONFIDENCE)
        yield (
            f"{len(alone)} more if each were asked alone, of which about {luck:.0f} would come of"
            " luck were there nothing at all"
        )
    if found.moved:
        yield "metrics by their change from the base model, which is not the same for all"
