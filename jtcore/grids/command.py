"""What `jt-run` does with a grid: check it, bring its folder up to date, have its runs done."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attrs import field, frozen

from jtcore.check import described
from jtcore.errors import Interrupted, JtError
from jtcore.grids import folder as folders
from jtcore.grids.folder import Checked, check_trials, place_of
from jtcore.grids.grid import Declared, Grid, Trial, read_grid
from jtcore.grids.jobs import Jobs, Launcher
from jtcore.grids.results import refresh_results, write_results
from jtcore.grids.state import is_done, read_failure, state_of
from jtcore.grids.work import Outcome
from jtcore.plugins import Plugins, load_plugins
from jtcore.proceed import plugin_folders, shown
from jtcore.processes import ALONE, Processes
from jtcore.run import locked, speaker
from jtcore.signals import stop_on_signals
from jtcore.structure import structure_component
from jtcore.tables import parse_toml

USUAL = "local"  # the kind of launcher where none is named
TOGETHER = "here"  # where several processes share each run


def check_grid(declared: Declared) -> str:
    """Check every run and the launcher; says what was checked. Raises JtError with all problems."""
    wanted = check_trials(declared)
    problems = dict.fromkeys(p for each in wanted.values() for p in each.problems)
    problems |= dict.fromkeys(_launcher_problems(declared))
    if problems:
        raise JtError(problems)
    for broken in dict.fromkeys(b for each in wanted.values() for b in each.plugins.broken):
        print(f"broken plugin {broken.name}: {broken.error}")
    for name, trials in declared.groups.items():
        for line in described(wanted[trials[0]].recipe):
            print(f"{place_of(name, trials[0])}: {line}")
    return counted(declared.grid)


def counted(grid: Grid) -> str:
    """Such as "5 variants x 3 subjects x 2 seeds: 28 runs"."""
    told = " x ".join(_plural(len(labels), axis) for axis, labels in grid.axes.items())
    return f"{told}: {_plural(len(grid.trials), 'run')}"


def _plural(count: int, axis: str) -> str:
    name = axis.rpartition(".")[2]
    return f"{count} {name}{'s' * (count > 1 and not name.endswith('s'))}"


def start_grid(
    declared: Declared,
    folder: Path,
    path: Path,
    settings: Sequence[str],
    quiet: bool,
    follow: bool,
    processes: Processes,
) -> None:
    """Do what a grid's folder lacks. A recipe that cannot be leaves the others be, and is told.

    Raises JtError, Interrupted.
    """
    say = speaker(quiet or not processes.leads)
    wanted = check_trials(declared)
    problems = dict.fromkeys(p for each in wanted.values() for p in each.problems)
    if all(each.problems for each in wanted.values()):
        raise JtError(problems)
    launcher = _launcher(declared.grid, _plugins(wanted), processes)
    if processes.leads:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other(folder)
        with locked(folder):
            _tell_problems(problems)
            _bring_up_to_date(declared, folder, path, settings, wanted, say)
    processes.of_leader(None)  # who wait until the folder is there
    _launch(launcher, folder.absolute(), say, quiet, follow, processes)


def proceed_grid(folder: Path, quiet: bool, follow: bool, processes: Processes) -> None:
    """Do what is not done yet of a grid as its folder has it. Raises JtError, Interrupted."""
    grid = read_grid(folder)
    recipes = [folder / trial.folder / "recipe.resolved.toml" for trial in grid.trials]
    named = [plugin_folders(parse_toml(recipe)) for recipe in recipes if recipe.is_file()]
    plugins = load_plugins(dict.fromkeys(each for folders in named for each in folders))
    launcher = _launcher(grid, plugins, processes)
    say = speaker(quiet or not processes.leads)
    _launch(launcher, folder.absolute(), say, quiet, follow, processes)


def _refuse_other(folder: Path) -> None:
    """A folder with something else in it is nobody's to fill."""
    there = (each for each in folder.iterdir() if not each.name.startswith("."))
    if read_grid(folder) is None and any(there):
        raise JtError(f"{folder} exists and is not of a grid; name another with --out")


def _tell_problems(problems: Mapping[str, None]) -> None:
    """At once: who watches may want to end it all and mend them."""
    if problems:
        print("\n".join(problems), file=sys.stderr)
        print("the runs without a problem are done; Ctrl-C ends them", file=sys.stderr)


def _bring_up_to_date(
    declared: Declared,
    folder: Path,
    path: Path,
    settings: Sequence[str],
    wanted: Mapping[Trial, Checked],
    say: Callable[[str], None],
) -> None:
    dues, others = folders.due(folder, wanted), folders.leftovers(folder, declared)
    say(f"{shown(folder)}: {counted(declared.grid)}, {len(dues)} to be done")
    known = read_grid(folder) is not None
    for each in dues if known else ():
        if each.why != folders.NOT_BEGUN:
            say(f"  {each.trial.folder}: {each.why}")
    if known and any(each.new and (folder / each.trial.folder).exists() for each in dues):
        say(f"  what they replace goes to {shown(folders.replaced_folder(folder))}")
    for name in others:
        say(f"  {name}: is left as it is, no part of the grid any more")
    folders.make(folder, declared, path, settings, wanted, dues)


def _launch(
    launcher: Launcher,
    folder: Path,
    say: Callable[[str], None],
    quiet: bool,
    follow: bool,
    processes: Processes,
) -> None:
    """Have what is not finished done, and compare what there is."""
    grid = read_grid(folder)
    runs = [folder / trial.folder for trial in grid.trials]
    due = [run for run in runs if (run / "run.json").is_file() and not is_done(run)]
    due.sort(key=lambda run: state_of(run) == "running")  # by others: they may be done by then
    watch = _Watch(folder, len(runs), len(runs) - len(due), say)
    with stop_on_signals() as stop:
        jobs = Jobs(folder, due, say, watch.ended, follow, quiet, processes)
        if due:
            launcher.launch(jobs, stop)
        if not processes.leads:
            return
        results = _results(folder)
        if stop.asked:
            say(f"stopped; continue with: jt-run --resume {shown(folder)}")
            raise Interrupted
        say(results)
    _conclude(folder, runs, watch, say)


def _conclude(folder: Path, runs: Sequence[Path], watch: "_Watch", say: Callable) -> None:
    """Raises JtError where runs have failed."""
    told = {run: failure for run in runs if (failure := read_failure(run))}
    absent = [run for run in runs if not (run / "run.json").is_file() and run not in told]
    problems = [f"{run.name}: {p}" for run, failure in told.items() for p in failure.problems]
    problems += [p for run, each in watch.untold.items() if run not in told for p in each]
    if absent:
        problems.append(f"{_plural(len(absent), 'run')} have no folder yet; run jt-run GRID again")
    name = shown(folder)
    unfinished = [run for run in runs if state_of(run) != "finished"]
    if problems:
        raise JtError(
            [
                *problems,
                f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished;"
                f" the others are done again by: jt-run --resume {name}",
            ]
        )
    if unfinished:
        say(f"\n{len(runs) - len(unfinished)} of {len(runs)} runs are finished")
    else:
        say(f"\n{name} is complete. To look at it:")
    say(f"  {name / 'grid.html'}\n  tensorboard --logdir {name}")


def _results(folder: Path) -> str:
    """A disk that is too full for tables has had too little room for runs too: these are told."""
    try:
        return write_results(folder)
    except OSError as error:
        return f"{shown(folder)}: its tables could not be written: {error}"


@frozen(eq=False)
class _Watch:
    """Counts runs that end, and tells of each."""

    folder: Path
    total: int
    done: int
    say: Callable[[str], None]
    ends: list[Path] = field(factory=list)
    untold: dict[Path, tuple[str, ...]] = field(factory=dict)  # of runs that could not say it
    lock: AbstractContextManager = field(factory=threading.Lock)

    def ended(self, run: Path, outcome: Outcome) -> None:
        with self.lock:
            if outcome.state == "finished":
                self.ends.append(run)
            elif outcome.state == "failed":
                self.untold[run] = tuple(f"{run.name}: {p}" for p in outcome.problems)
            count = f"[{self.done + len(self.ends)}/{self.total}]"
            why = f": {outcome.problems[0]}" if outcome.problems else ""
            self.say(f"{count} {run.name} {outcome.state}{why}")
        refresh_results(self.folder)


def _launcher(grid: Grid, plugins: Plugins, processes: Processes) -> Launcher:
    """Raises JtError where it cannot be built, or lacks something."""
    table: dict[str, Any] = {"kind": USUAL, **grid.launch}
    if not processes.alone:
        table = {"kind": TOGETHER}
    launcher = structure_component("launchers", table, plugins, "launch").spec
    problems = getattr(launcher, "problems", tuple)()
    if problems := [f"launch: {problem}" for problem in problems]:
        raise JtError(problems)
    return launcher


def launcher_of(declared: Declared) -> Launcher:
    """That does a grid's runs. Raises JtError."""
    return _launcher(declared.grid, load_plugins(plugin_folders(declared.common)), ALONE)


def _launcher_problems(declared: Declared) -> tuple[str, ...]:
    try:
        launcher_of(declared)
    except JtError as error:
        return error.problems
    return ()


def _plugins(wanted: Mapping[Trial, Checked]) -> Plugins:
    return next(each.plugins for each in wanted.values() if each.plugins)
