"""What `jt-run` does: check a recipe or an ablation, make its folder, and do what it says.

Starting and resuming share one path: a folder is made, and then whatever is not done yet in a
folder is done from what stands in it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from attrs import evolve

from jtcore import ablation
from jtcore.check import check, described
from jtcore.comparison import write_tables
from jtcore.errors import Interrupted, JtError
from jtcore.experiment import conduct
from jtcore.files import remove_leftovers
from jtcore.plugins import Plugins, load_plugins
from jtcore.processes import Processes, together
from jtcore.provenance import changed_plugins, refuse_changes
from jtcore.recipe import PluginFolders, Recipe, build_recipe
from jtcore.run import (
    FolderExistsError,
    Run,
    fill_folder,
    free_folder,
    locked,
    new_folder,
    speaker,
)
from jtcore.signals import Stop, stop_on_signals
from jtcore.tables import Table, change, find_recipe, overlay, parse_toml, read_table

RUNS = Path("runs")


def start(
    argument: str, settings: Sequence[str], folders: Sequence[str], out: Path | None, quiet: bool
) -> None:
    """Begin what a recipe or an ablation says, in a new folder. Raises JtError, Interrupted."""
    with together() as processes:
        path = find_recipe(argument)
        table = changed_table(path, settings, folders)
        recipes, plugins = checked(table)
        trials = ablation.trials(table)
        folder = None
        if processes.leads:
            folder = _create(out, path, settings, recipes, plugins, trials)
        _proceed(processes.of_leader(folder), quiet, processes)


def check_only(argument: str, settings: Sequence[str], folders: Sequence[str]) -> None:
    """Check a recipe, or every variant of an ablation, and train nothing. Raises JtError."""
    table = changed_table(find_recipe(argument), settings, folders)
    recipes, plugins = checked(table)
    for broken in dict.fromkeys(b for each in plugins.values() for b in each.broken):
        print(f"broken plugin {broken.name}: {broken.error}")
    what = "recipe" if None in recipes else f"{len(recipes)} variant{'s' * (len(recipes) > 1)}"
    what += f" with {len(table['seeds'])} seeds" if "seeds" in table else ""
    for name, recipe in recipes.items():
        for line in described(recipe):
            print(line if name is None else f"variant.{name}: {line}")
    print(f"{argument}: {what} checked, no problem found")


def proceed(folder: Path, quiet: bool) -> None:
    """Do what is not done yet in a run directory, or in every run of an ablation.

    Raises JtError, and Interrupted where a signal asked to end.
    """
    with together() as processes:
        _proceed(folder, quiet, processes)


def _proceed(folder: Path, quiet: bool, processes: Processes) -> None:
    quiet = quiet or not processes.leads
    say, folder = speaker(quiet), folder.absolute()
    runs = ablation.run_folders(folder)
    with stop_on_signals() as stop:
        try:
            if runs:
                _proceed_ablation(folder, [Run(run, say, quiet, processes) for run in runs], stop)
            else:
                _proceed_run(Run(folder, say, quiet, processes), stop)
        except Interrupted:
            say(f"stopped; continue with: jt-run --resume {_relative(folder)}")
            raise
    say(f"\n{_relative(folder)} is complete. To look at it:\n{_directions(folder)}")


def checked(table: Table) -> tuple[dict[str | None, Recipe], dict[str | None, Plugins]]:
    """The recipes of a table by variant (None where it has no variants), wholly checked, and the
    plugins that each was built with.

    Raises JtError with the problems of all of them.
    """
    recipes, plugins, problems = {}, {}, []
    for name, variant in ablation.variants(table).items():
        try:
            plugins[name] = load_plugins(_plugin_folders(variant))
            recipes[name] = _with_absolute_folders(build_recipe(variant, plugins[name]))
            check(recipes[name])
        except JtError as error:
            place = "" if name is None else f"variant.{name}: "
            problems += [f"{place}{problem}" for problem in error.problems]
    if problems:
        raise JtError(problems)
    return recipes, plugins


def _create(
    out: Path | None,
    path: Path,
    settings: Sequence[str],
    recipes: Mapping[str | None, Recipe],
    plugins: Mapping[str | None, Plugins],
    trials: Sequence[ablation.Trial],
) -> Path:
    """Make the folder of a run or an ablation; without `out`, the next that nobody else takes."""
    folder = out or free_folder(RUNS, path.stem)
    try:
        if trials:
            ablation.create(folder, path, settings, recipes, plugins, trials)
        else:
            with new_folder(folder) as aside:
                fill_folder(aside, path, settings, recipes[None], plugins[None])
    except FolderExistsError:
        if out:
            raise
        return _create(out, path, settings, recipes, plugins, trials)
    return folder


def _proceed_ablation(folder: Path, runs: Sequence[Run], stop: Stop) -> None:
    """One run after another; one that fails leaves the others be. Raises JtError in the end."""
    problems = []
    for run in runs:
        try:
            _proceed_run(run, stop)
        except JtError as error:
            if not run.processes.alone:  # which have not all come to the same place
                raise
            problems += [f"variant.{run.folder.name}: {problem}" for problem in error.problems]
    if runs[0].processes.leads:
        runs[0].say(write_tables(folder))
    if problems:
        raise JtError(problems)


def _proceed_run(run: Run, stop: Stop) -> None:
    circumstances = run.read_json("run.json")
    if circumstances is None:
        raise JtError(f"{run.folder}: not a run directory: it has no run.json")
    leads = run.processes.leads
    if run.processes.of_leader(run.finished):
        run.say(f"{_relative(run.folder)} is complete already")
        return
    alone = locked(run.folder) if leads else nullcontext()
    with alone, inside(Path(circumstances["directory"])):
        if leads:
            remove_leftovers(run.folder)
        table = parse_toml(run.folder / "recipe.resolved.toml")
        recipes, plugins = checked(table)
        recipe, loaded = recipes[None], plugins[None]
        refuse_changes(circumstances, recipe)
        for broken in loaded.broken:
            run.say(f"broken plugin {broken.name}: {broken.error}")
        for name in changed_plugins(circumstances["plugins"], loaded):
            run.say(f"plugin {name} has changed since this run began")
        run.say(f"{recipe.title or run.folder.name}: {_relative(run.folder)}")
        conduct(recipe, run, loaded, stop)


def _with_absolute_folders(recipe: Recipe) -> Recipe:
    """So that a run can be resumed and sampled from anywhere."""
    folders = tuple(str(Path(folder).absolute()) for folder in recipe.plugins.folders)
    return evolve(recipe, plugins=PluginFolders(folders))


def changed_table(path: Path, settings: Sequence[str], folders: Sequence[str]) -> Table:
    """A recipe's table as the command line changes it."""
    table = change(read_table(path), settings)
    if folders:
        table = overlay(table, {"plugins": {"folders": [*_plugin_folders(table), *folders]}})
    return table


def _plugin_folders(table: Mapping[str, Any]) -> list[str]:
    """Needed before the recipe can be structured, so read with care."""
    plugins = table.get("plugins")
    folders = plugins.get("folders", []) if isinstance(plugins, Mapping) else []
    if isinstance(folders, list) and all(isinstance(folder, str) for folder in folders):
        return folders
    raise JtError("plugins.folders: expected a list of paths")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Relative paths of a recipe mean what they meant where the run was started."""
    here = Path.cwd()
    if folder.is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def _relative(folder: Path) -> Path:
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _directions(folder: Path) -> str:
    folder = _relative(folder)
    page = "ablation.md" if ablation.run_folders(folder) else "report.html"
    return f"  {folder / page}\n  tensorboard --logdir {folder}"
