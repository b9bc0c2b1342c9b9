"""A grid: many runs of one file, in one folder, and what that folder says of itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from jtcore.errors import JtError
from jtcore.grids.axes import SEED, VARIANT, Axes, Label, Point, same
from jtcore.grids.declared import take_axes
from jtcore.near import did_you_mean
from jtcore.run import read_json, write_json
from jtcore.tables import Table

INDEX = "grid.json"
OWN = ("reference", "launch")  # of a grid's table, besides what varies


@frozen
class Trial:
    """One run of a grid."""

    folder: str  # within the grid's
    point: Point = field(hash=False)

    @property
    def variant(self) -> Label | None:
        return self.point.get(VARIANT)

    @property
    def seed(self) -> Label | None:
        return self.point.get(SEED)


@frozen
class Grid:
    """What a grid's folder is of: its axes with their levels, and its runs in order."""

    title: str
    file: str
    axes: Mapping[str, tuple[Label, ...]]
    reference: Point  # what the levels of each axis but seed are compared to
    zipped: tuple[tuple[str, ...], ...]  # axes that move together
    launch: Mapping[str, Any]  # the table of that name
    trials: tuple[Trial, ...]


@frozen
class Declared:
    """A table that was read: a grid, and what its runs have in common."""

    common: Table
    axes: Axes
    grid: Grid

    def recipe(self, trial: Trial) -> Table:
        return self.axes.laid_over(self.common, trial.point)

    @property
    def groups(self) -> dict[str, tuple[Trial, ...]]:
        """Runs whose recipes differ by their seed alone, by what their folders have in common."""
        unseeded = tuple(axis for axis in self.axes.axes if axis.name != SEED)
        together = tuple(tuple(n for n in group if n != SEED) for group in self.axes.zipped)
        others = attrs.evolve(self.axes, axes=unseeded, zipped=together)
        found: dict[str, tuple[Trial, ...]] = {}
        for trial in self.grid.trials:
            name = others.folder(trial.point) or self.grid.trials[0].folder
            found[name] = (*found.get(name, ()), trial)
        return found


def take_grid(table: Table, file: Path) -> Declared | None:
    """The grid that a table declares; None where it is a recipe. Raises JtError."""
    common, axes = take_axes(table)
    own = {key: common.pop(key) for key in OWN if key in common}
    if axes is None:
        if own:
            raise JtError(f"{key}: is of grids, which have [variant.NAME] or [axes]" for key in own)
        return None
    trials = tuple(Trial(axes.folder(point), point) for point in axes.points())
    _refuse_shared_folders(trials)
    levels = {axis.name: tuple(level.label for level in axis.levels) for axis in axes.axes}
    launch = own.get("launch", {})
    if not isinstance(launch, Mapping):
        raise JtError("launch: expected a table, such as [launch] with kind = 'local'")
    return Declared(
        common,
        axes,
        Grid(
            str(common.get("title") or file.stem),
            str(file),
            levels,
            _reference(own.get("reference", {}), levels),
            axes.zipped,
            dict(launch),
            trials,
        ),
    )


def variants(table: Table) -> dict[str | None, Table]:
    """The recipes of a table by name, one for each group of runs that differ by their seed alone;
    a plain recipe is one without a name. Raises JtError."""
    declared = take_grid(table, Path("grid"))
    if declared is None:
        return {None: table}
    return {name: declared.recipe(trials[0]) for name, trials in declared.groups.items()}


def write_grid(folder: Path, grid: Grid) -> None:
    """Say in a grid's folder what it is of."""
    table = attrs.asdict(grid, recurse=False)
    del table["trials"]
    runs = [{"folder": trial.folder, "point": dict(trial.point)} for trial in grid.trials]
    write_json(folder / INDEX, table | {"runs": runs})


def read_grid(folder: Path) -> Grid | None:
    """What a grid's folder says of itself; None where it is not one. Raises JtError."""
    index = read_json(folder / INDEX)
    if index is None:
        return None
    return Grid(
        index["title"],
        index["file"],
        {axis: tuple(levels) for axis, levels in index["axes"].items()},
        index["reference"],
        tuple(tuple(group) for group in index["zipped"]),
        index["launch"],
        tuple(Trial(run["folder"], run["point"]) for run in index["runs"]),
    )


def run_folders(folder: Path) -> list[Path]:
    """The run directories of a grid in order; none where it is not one."""
    grid = read_grid(folder)
    return [folder / trial.folder for trial in grid.trials] if grid else []


def _refuse_shared_folders(trials: Sequence[Trial]) -> None:
    taken: dict[str, Trial] = {}
    for trial in trials:
        other = taken.setdefault(trial.folder.lower(), trial)
        if other is not trial:
            raise JtError(
                f"axes: {dict(other.point)} and {dict(trial.point)} would share the folder"
                f" {trial.folder}; give levels names with tables [axes.AXIS.NAME]"
            )


def _reference(given: object, levels: Mapping[str, tuple[Label, ...]]) -> Point:
    """The level of each axis that others are compared to: the first, unless another is named."""
    first = {axis: labels[0] for axis, labels in levels.items() if axis != SEED}
    if isinstance(given, str) and VARIANT in first:
        given = {VARIANT: given}
    if not isinstance(given, Mapping):
        raise JtError(f"reference: expected a variant, or a table of axis = level, got {given!r}")
    for axis, label in given.items():
        if axis not in first:
            raise JtError(f"reference: no axis is called {axis!r}; {did_you_mean(axis, first)}")
        if not any(same(label, each) for each in levels[axis]):
            told = ", ".join(str(each) for each in levels[axis])
            raise JtError(f"reference: {axis} has no level {label!r}; it has {told}")
    return first | dict(given)
