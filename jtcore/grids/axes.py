"""What varies in a grid: axes with levels, and every combination of these.

A level changes the recipe, says what a `{word}` in the recipe's strings stands for, or both.
"""

import hashlib
from collections.abc import Mapping
from itertools import product
from typing import Any

from attrs import Factory, frozen

from jtcore.tables import Table, overlay

Label = str | int | float | bool
Point = Mapping[str, Label]  # axis -> level

VARIANT, SEED = "variant", "seed"
LONGEST = 160  # characters of a folder's name


@frozen
class Level:
    """One value of an axis."""

    label: Label
    part: str  # of a folder's name
    change: Table  # laid over the recipe
    words: Mapping[str, str] = Factory(dict)  # what `{WORD}` stands for, by WORD


@frozen
class Axis:
    """What varies, and how."""

    name: str
    levels: tuple[Level, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """That all levels say."""
        return tuple(self.levels[0].words)

    def level(self, label: Label) -> Level:
        return next(level for level in self.levels if same(level.label, label))


@frozen
class Axes:
    """All that varies. The order of axes is that of folders' names: variant, as written, seed."""

    axes: tuple[Axis, ...]
    zipped: tuple[tuple[str, ...], ...] = ()  # axes that move together
    exclude: tuple[Mapping[str, Any], ...] = ()

    def points(self) -> list[Point]:
        """Every combination that is not excluded, in the order of the runs.

        Variants side by side and seed after seed: where a grid stops early, variants have been run
        with the same seeds.
        """
        groups = [*reversed(self._groups())]
        variants = [g for g in groups if g[0].name == VARIANT]
        groups = [g for g in groups if g[0].name != VARIANT] + variants
        found = []
        for chosen in product(*(list(zip(*(a.levels for a in g), strict=True)) for g in groups)):
            labels = {
                axis.name: level.label
                for group, levels in zip(groups, chosen, strict=True)
                for axis, level in zip(group, levels, strict=True)
            }
            point = {axis.name: labels[axis.name] for axis in self.axes}
            if not any(matches(point, rule) for rule in self.exclude):
                found.append(point)
        return found

    def folder(self, point: Point) -> str:
        """A readable name, which other axes' levels and the number of levels leave as it is."""
        following = {name for group in self.zipped for name in group[1:]}
        parts = [
            axis.level(point[axis.name]).part for axis in self.axes if axis.name not in following
        ]
        name = "-".join(parts)
        return name if len(name) <= LONGEST else f"{name[: LONGEST - 7]}-{digest(name)}"

    def laid_over(self, table: Table, point: Point) -> Table:
        """The recipe of a point."""
        words = {name: str(label) for name, label in point.items()}  # {seed} and {variant} too
        for axis in self.axes:
            level = axis.level(point[axis.name])
            if axis.name == VARIANT:
                own = dict(level.change)
                table = overlay(overlay(own.pop("base", {}), table), own)
            else:
                table = overlay(table, level.change)
            words |= level.words
        return _spelled(table, words)

    def _groups(self) -> list[tuple[Axis, ...]]:
        """Axes that move together, at the place of the first of them."""
        by_name = {axis.name: axis for axis in self.axes}
        of = {name: group for group in self.zipped for name in group}
        names = dict.fromkeys(of.get(axis.name, (axis.name,)) for axis in self.axes)
        return [tuple(by_name[name] for name in group) for group in names]


def same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def matches(point: Point, rule: Mapping[str, Any]) -> bool:
    return all(
        any(same(point[name], each) for each in (given if isinstance(given, list) else [given]))
        for name, given in rule.items()
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _spelled(value: Any, words: Mapping[str, str]) -> Any:
    """With what words stand for, in strings anywhere."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(f"{{{word}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: _spelled(each, words) for key, each in value.items()}
    return [_spelled(each, words) for each in value] if isinstance(value, list) else value
