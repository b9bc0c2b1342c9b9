"""What a grid's runs will take, before any is begun: `jt-run GRID --dry-run`."""

import json
import os
import sys
import timeit
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from attrs import evolve, frozen

from jtcore.errors import JtError
from jtcore.grids.command import counted, launcher_of
from jtcore.grids.folder import Checked, check_trials, due, leftovers, place_of
from jtcore.grids.grid import Declared, Trial
from jtcore.grids.jobs import Launcher
from jtcore.planner.plan import make_plan, seconds
from jtcore.planner.tell import table_lines
from jtcore.proceed import built
from jtcore.recipe import Recipe, recipe_table
from jtcore.run import read_json

COMPUTED_ONCE = ("weights", "cache")  # what runs of one backbone and data share on a disk
GIB, MIB = 2**30, 2**20
GPU = 100.0  # TFLOP/s, where nobody says
SIDE = 1024  # of the matrices by which a machine is timed
OF_FILES = ("source", "prompt", "prompts", "task", "title", "seed")  # what takes no more or less


@frozen
class Foresight:
    """What one run takes."""

    steps: int
    seconds: float
    measured: bool  # whether runs like it have been timed
    device: int  # bytes
    host: int
    own: int  # bytes on disk
    shared: Mapping[str, int]


def foresee(declared: Declared, folder: Path, tflops: float | None) -> None:
    """Print every run with what it will take and why it is to be done. Without `tflops`, a GPU is
    thought to compute 100 and a machine without one what it is seen to.

    What weights and data runs lack is told first; planning needs neither. Raises JtError, at the
    end where runs could not begin, at once where none could even be planned.
    """
    wanted = check_trials(declared)
    launcher, tflops = launcher_of(declared), tflops or _tflops()
    told = dict.fromkeys(_problems(declared, wanted))
    plannable = {trial: _unchecked(declared, trial, each) for trial, each in wanted.items()}
    if not any(each.recipe for each in plannable.values()):
        raise JtError(told)
    for problem in told:
        print(problem, file=sys.stderr, flush=True)  # planning takes a while
    _print_plan(declared, folder, plannable, launcher, tflops)
    if told:
        lacking = sum(bool(each.problems) for each in wanted.values())
        raise JtError(
            f"{lacking} of {len(wanted)} runs could not begin: what they lack is told above"
        )


def _problems(declared: Declared, wanted: Mapping[Trial, Checked]) -> Iterator[str]:
    """Each with its place; what many runs lack is told once."""
    places: dict[str, list[str]] = {}
    for name, trials in declared.groups.items():
        place = place_of(name, trials[0])
        for problem in wanted[trials[0]].problems:
            places.setdefault(problem.removeprefix(f"{place}: "), []).append(place)
    for problem, (first, *others) in places.items():
        more = f" and {len(others)} more" if others else ""
        yield f"{first}{more}: {problem}"


def _unchecked(declared: Declared, trial: Trial, found: Checked) -> Checked:
    """With its recipe, where that can be read although something is not there."""
    if not found.problems:
        return found
    try:
        recipe, plugins = built(declared.recipe(trial))
    except JtError:
        return found
    return evolve(found, recipe=recipe, plugins=plugins)


def _print_plan(
    declared: Declared,
    folder: Path,
    wanted: Mapping[Trial, Checked],
    launcher: Launcher,
    tflops: float,
) -> None:
    dues = {each.trial: each.why for each in due(folder, wanted)}
    print(f"{folder}: {counted(declared.grid)}, {len(dues)} to be done\n")
    found = _foresights(wanted, folder, tflops)
    rows = [_row(trial, found.get(trial), dues.get(trial)) for trial in wanted]
    header = ("run", "steps", "time", "device GB", "disk MB", "why")
    print("\n".join(table_lines(header, rows)))
    for name in leftovers(folder, declared):
        print(f"{name}: is left as it is, no part of the grid any more")
    at_once = getattr(launcher, "at_once", lambda runs: None)(len(dues))
    summed = _summed([found[trial] for trial in dues if trial in found], at_once, tflops)
    print("\n" + "\n".join(summed), flush=True)


def _tflops() -> float:
    """What this machine computes, in 1e12 operations a second, with one thread for each run."""
    if torch.cuda.is_available():
        return GPU
    matrix = torch.rand(SIDE, SIDE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = timeit.repeat(lambda: matrix @ matrix, number=1, repeat=5)
    finally:
        torch.set_num_threads(threads)
    return 2 * SIDE**3 / min(times) / 1e12


def _foresights(
    wanted: Mapping[Trial, Checked], folder: Path, tflops: float
) -> dict[Trial, Foresight]:
    """Of runs that can be planned. Runs of one shape are planned once; those like finished ones
    take as long as these took."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    shapes = {trial: _shape(each.recipe) for trial, each in wanted.items() if each.recipe}
    timed: dict[str, list[float]] = {}
    for trial, shape in shapes.items():
        if result := read_json(folder / trial.folder / "result.json"):
            timed.setdefault(shape, []).append(result["seconds"])
    plans: dict[str, Foresight | None] = {}
    for trial, shape in shapes.items():
        if shape not in plans:
            plans[shape] = _plan(wanted[trial], timed.get(shape), tflops)
    return {trial: plan for trial, shape in shapes.items() if (plan := plans[shape])}


def _plan(wanted: Checked, timed: Sequence[float] | None, tflops: float) -> Foresight | None:
    """None where what the run's check has told is in the way. Raises JtError where it is not."""
    try:
        return _foresight(wanted.recipe, timed, tflops)
    except JtError:
        if wanted.problems:
            return None
        raise


def _foresight(recipe: Recipe, timed: Sequence[float] | None, tflops: float) -> Foresight:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about numbers that nobody computes
        plan = make_plan(recipe, None, tflops * 1e12, 1)
    return Foresight(
        recipe.steps,
        median(timed) if timed else seconds(recipe, plan),
        timed is not None,
        plan.estimate.worst.needed,
        sum(plan.estimate.host.values()),
        sum(size for what, size in plan.disk.items() if what not in COMPUTED_ONCE),
        {what: plan.disk[what] for what in COMPUTED_ONCE},
    )


def _shape(recipe: Recipe) -> str:
    """What recipes have in common that take as much: all but files, words and seeds."""
    return json.dumps(_bare(recipe_table(recipe)), sort_keys=True)


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: len(each) if key == "prompts" else _bare(each)
            for key, each in value.items()
            if key not in OF_FILES or key == "prompts"
        }
    return value


def _row(trial: Trial, found: Foresight | None, why: str | None) -> tuple[str, ...]:
    if found is None:
        return (trial.folder, "?", "?", "?", "?", "cannot be planned")
    return (
        trial.folder,
        str(found.steps),
        told(found.seconds) + ("" if found.measured else " *"),
        f"{found.device / GIB:.2f}",
        f"{found.own / MIB:.0f}",
        "complete" if why is None else why,
    )


def _summed(found: Sequence[Foresight], at_once: int | None, tflops: float) -> Iterator[str]:
    if not found:
        yield "nothing is to be done"
        return
    whole = sum(each.seconds for each in found)
    yield f"time: {told(whole)} one after another" + (
        f", about {told(whole / at_once)} with {at_once} at once" if at_once else ""
    )
    if not all(each.measured for each in found):
        yield (
            f"  * by arithmetic alone at {tflops:.3g} TFLOP/s (--tflops): small tensors take"
            " longer; reading, decoding and metrics come on top. Once a run like it is done, its"
            " time is taken"
        )
    own = sum(each.own for each in found)
    shared = {what: max(each.shared[what] for each in found) for what in COMPUTED_ONCE}
    yield (
        f"disk: {_size(own)} of runs; once {_size(shared['weights'])} of weights, and for each"
        + (f" of their data {_size(shared['cache'])} of cache")
    )
    yield f"memory: a run at most {_size(max(each.device for each in found))} on its device" + (
        f" and {_size(host)} on the host" if (host := max(e.host for e in found)) else ""
    )


def told(seconds: float) -> str:
    """Such as "40 s", "12 min", "3.5 h", "2.1 d"."""
    for unit, size, digits in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s"


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GB" if size >= GIB else f"{size / MIB:.0f} MB"
