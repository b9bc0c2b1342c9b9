"""What `jt-run` does: check a recipe or a grid, make its folder, and do what it says.

Starting and resuming share one path: a folder is made, and then whatever is not done yet in a
folder is done from what stands in it.
"""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from jtcore.check import described
from jtcore.errors import Interrupted, JtError
from jtcore.grids.grid import Declared, read_grid, take_grid
from jtcore.plugins import Plugins
from jtcore.proceed import checked, plugin_folders, proceed_run, shown
from jtcore.processes import Processes, together
from jtcore.recipe import Recipe
from jtcore.run import FolderExistsError, Run, fill_folder, free_folder, new_folder, speaker
from jtcore.signals import stop_on_signals
from jtcore.tables import Table, change, find_recipe, overlay, read_table

RUNS = Path("runs")


@frozen
class Asked:
    """What a command line asks for."""

    recipe: str  # a path or shipped name
    settings: Sequence[str] = ()  # as --set has them
    folders: Sequence[str] = ()  # of plugins
    out: Path | None = None

    def read(self) -> tuple[Path, Table, Declared | None]:
        """The file, its table as the command line changes it, and the grid that it declares, if
        any. Raises JtError."""
        path = find_recipe(self.recipe)
        table = changed_table(path, self.settings, self.folders)
        return path, table, take_grid(table, path)


def start(asked: Asked, quiet: bool, follow: bool = False) -> None:
    """Do what a recipe says in a new folder, or what a grid says and its folder lacks.

    Raises JtError, Interrupted.
    """
    path, table, declared = asked.read()
    with together() as processes:
        if declared is not None:
            from jtcore.grids.command import start_grid

            folder = asked.out or RUNS / path.stem
            start_grid(declared, folder, path, asked.settings, quiet, follow, processes)
            return
        _refuse(follow, "--follow")
        recipe, plugins = checked(table)
        folder = None
        if processes.leads:
            folder = _create(asked.out, path, asked.settings, recipe, plugins)
        _proceed(processes.of_leader(folder), quiet, processes)


def check_only(asked: Asked) -> None:
    """Check a recipe, or every run of a grid, and train nothing. Raises JtError."""
    _, table, declared = asked.read()
    if declared is not None:
        from jtcore.grids.command import check_grid

        print(f"{asked.recipe}: {check_grid(declared)} checked, no problem found")
        return
    recipe, plugins = checked(table)
    for broken in plugins.broken:
        print(f"broken plugin {broken.name}: {broken.error}")
    for line in described(recipe):
        print(line)
    print(f"{asked.recipe}: recipe checked, no problem found")


def dry_run(asked: Asked, tflops: float | None) -> None:
    """List the runs of a grid with what they will take. Raises JtError."""
    path, _, declared = asked.read()
    _refuse(declared is None, "--dry-run")
    from jtcore.grids.foresight import foresee

    foresee(declared, asked.out or RUNS / path.stem, tflops)


def _refuse(asked: bool, option: str) -> None:
    if asked:
        raise JtError(f"{option} is of grids; jt-run --check and jt-plan are of a recipe")


def proceed(folder: Path, quiet: bool, follow: bool = False) -> None:
    """Do what is not done yet in a run directory, or in every run of a grid.

    Raises JtError, and Interrupted where a signal asked to end.
    """
    with together() as processes:
        if read_grid(folder) is None:
            _refuse(follow, "--follow")
            _proceed(folder, quiet, processes)
        else:
            from jtcore.grids.command import proceed_grid

            proceed_grid(folder, quiet, follow, processes)


def _proceed(folder: Path, quiet: bool, processes: Processes) -> None:
    quiet = quiet or not processes.leads
    say, folder = speaker(quiet), folder.absolute()
    with stop_on_signals() as stop:
        try:
            proceed_run(Run(folder, say, quiet, processes), stop)
        except Interrupted:
            say(f"stopped; continue with: jt-run --resume {shown(folder)}")
            raise
    name = shown(folder)
    say(f"\n{name} is complete. To look at it:\n  {name / 'report.html'}")
    say(f"  tensorboard --logdir {name}")


def changed_table(path: Path, settings: Sequence[str], folders: Sequence[str]) -> Table:
    """A recipe's table as the command line changes it."""
    table = change(read_table(path), settings)
    if folders:
        table = overlay(table, {"plugins": {"folders": [*plugin_folders(table), *folders]}})
    return table


def _create(
    out: Path | None, path: Path, settings: Sequence[str], recipe: Recipe, plugins: Plugins
) -> Path:
    """Make the folder of a run; without `out`, the next that nobody else takes."""
    folder = out or free_folder(RUNS, path.stem)
    try:
        with new_folder(folder) as aside:
            fill_folder(aside, path, settings, recipe, plugins)
    except FolderExistsError:
        if out:
            raise
        return _create(out, path, settings, recipe, plugins)
    return folder
