"""A grid's folder brought up to date: what is missing or has changed is made, and why is said."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, frozen

from jtcore.errors import JtError
from jtcore.grids.grid import Declared, Trial, read_grid, write_grid
from jtcore.grids.state import forget_failure, read_failure, state_of, write_failure
from jtcore.plugins import Plugins
from jtcore.proceed import checked
from jtcore.provenance import refuse_changes
from jtcore.recipe import Recipe, recipe_table
from jtcore.run import fill_folder, locked, new_folder, read_json
from jtcore.structure import Component
from jtcore.tables import parse_toml

REPLACED = ".replaced"  # ends the name of the folder beside the grid's, out of TensorBoard's sight
MOST = 3  # changes that are told
NOT_BEGUN = "not begun yet"
NO_MATTER = ("title", "checkpoint")  # of a recipe's tables, to what a run comes to
DECIDE = ("jt_choose_branches", "jt_run_branch", "jt_make_optimizer")  # hooks


@frozen(eq=False)
class Checked:
    """What a run is to be: a recipe and its plugins, or why it cannot be."""

    recipe: Recipe | None
    plugins: Plugins | None
    problems: tuple[str, ...] = ()


def check_trials(declared: Declared) -> dict[Trial, Checked]:
    """Every run's recipe. Those that differ by their seed alone are checked once."""
    found = {}
    for name, trials in declared.groups.items():
        one = _checked(declared, trials[0], name)
        for trial in trials:
            seeded = one.recipe and evolve(
                one.recipe, seed=trial.point.get("seed", one.recipe.seed)
            )
            found[trial] = evolve(one, recipe=seeded)
    return {trial: found[trial] for trial in declared.grid.trials}


def _checked(declared: Declared, trial: Trial, name: str) -> Checked:
    try:
        return Checked(*checked(declared.recipe(trial)))
    except JtError as error:
        place = place_of(name, trial)
        return Checked(None, None, tuple(f"{place}: {problem}" for problem in error.problems))


def place_of(name: str, trial: Trial) -> str:
    """Where problems of a group of runs are said to be."""
    return f"variant.{name}" if name == trial.variant else name


@frozen
class Due:
    """A run that is to be done, and why."""

    trial: Trial
    why: str
    new: bool  # whether its folder is to be made


def due(folder: Path, wanted: Mapping[Trial, Checked]) -> list[Due]:
    """What is not done yet, or done otherwise than it would be now."""
    return [Due(trial, *why) for trial, one in wanted.items() if (why := _why(folder, trial, one))]


def _why(folder: Path, trial: Trial, wanted: Checked) -> tuple[str, bool] | None:
    run = folder / trial.folder
    if wanted.recipe is None:
        return None  # and its folder says why
    if not (run / "run.json").is_file():
        return ("its recipe is mended" if run.is_dir() else "new"), True
    if changes := list(_changes(run, wanted)):
        more = f" and {len(changes) - MOST} more" if len(changes) > MOST else ""
        return f"{'; '.join(changes[:MOST])}{more}", True
    if (run / "result.json").is_file():
        return None
    state = state_of(run)
    if state == "failed":
        return f"failed before: {read_failure(run).problems[0]}", False
    return {"interrupted": "to be continued", "running": "being done by another process"}.get(
        state, NOT_BEGUN
    ), False


def _changes(run: Path, wanted: Checked) -> Iterator[str]:
    """In what a run differs from what it would be now: recipe, plugins, data."""
    then = parse_toml(run / "recipe.resolved.toml")
    now = recipe_table(wanted.recipe)
    yield from _differences(*(_that_counts(table) for table in (then, now)), "")
    circumstances = read_json(run / "run.json")
    before = {each["name"]: each["sha256"] for each in circumstances["plugins"]}
    for name in sorted(_used(wanted)):
        if before.get(name) != wanted.plugins.origins[name].sha256:
            yield f"plugin {name} has changed"
    try:
        refuse_changes(circumstances, wanted.recipe)  # files as they are named from here
    except JtError as error:
        yield from (problem.partition(";")[0] for problem in error.problems)


def _that_counts(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in NO_MATTER}


def _differences(then: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*now, *(key for key in then if key not in now)]:
            yield from _differences(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif then != now:
        yield f"{path} is {_brief(now)} and was {_brief(then)}"


def _brief(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _used(wanted: Checked) -> set[str]:
    """Names of the plugins that provide what the recipe has, or decide what a step does."""
    plugins = wanted.plugins
    kinds = {each.kind for each in _components(wanted.recipe)}
    provide = {name for (_, kind), name in plugins.providers.items() if kind in kinds}
    decide = {
        implementation.plugin_name
        for hook in DECIDE
        for implementation in getattr(plugins.hook, hook).get_hookimpls()
    }
    return provide | (decide & plugins.origins.keys())


def _components(value: object) -> Iterator[Component]:
    if isinstance(value, Component):
        yield value
        yield from _components(value.spec)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _components(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _components(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _components(each)


def make(
    folder: Path,
    declared: Declared,
    path: Path,
    settings: Sequence[str],
    wanted: Mapping[Trial, Checked],
    dues: Sequence[Due],
) -> None:
    """Make the folders of new and changed runs; what stands in their place is put aside.

    Each folder appears whole. What is no result of this grid has gone before its index says that it
    is of this grid, and what dies here can be done again. Raises JtError where a run has changed
    that is being done.
    """
    _refuse_busy(folder, dues)
    new = [each.trial for each in dues if each.new]
    for trial in new:
        if (folder / trial.folder).exists():
            _put_aside(folder / trial.folder)
    write_grid(folder, declared.grid)
    for trial in new:
        one = wanted[trial]
        with new_folder(folder / trial.folder) as aside:
            fill_folder(aside, path, settings, one.recipe, one.plugins)
    for trial, one in wanted.items():
        run = folder / trial.folder
        if one.problems:
            write_failure(run, "mistake", one.problems)
        elif (run / "result.json").is_file():  # which had a problem that is mended
            forget_failure(run)


def _refuse_busy(folder: Path, dues: Sequence[Due]) -> None:
    """Whoever does a run as it was would write into the folder of the new one."""
    busy = [each for each in dues if each.new and state_of(folder / each.trial.folder) == "running"]
    if busy:
        raise JtError(
            f"{each.trial.folder}: {each.why}, but is being done as it was; end that first"
            for each in busy
        )


def replaced_folder(folder: Path) -> Path:
    """Where a grid's runs go whose place another takes."""
    return folder.with_name(f"{folder.name}{REPLACED}")


def _put_aside(run: Path) -> None:
    """Nothing is lost: an old run is moved beside the grid."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    place = replaced_folder(run.parent) / f"{run.name}-{now}"
    place.parent.mkdir(exist_ok=True)
    with locked(run):
        run.rename(place)


def leftovers(folder: Path, declared: Declared) -> list[str]:
    """Runs of an earlier version of the grid, which are no part of it any more."""
    before = read_grid(folder)
    now = {trial.folder for trial in declared.grid.trials}
    return [each.folder for each in before.trials if each.folder not in now] if before else []
