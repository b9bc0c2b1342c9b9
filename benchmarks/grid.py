"""Runs of a grid two or more at once, beside the same runs one after another by `jt-run`.

    python -m benchmarks.grid --out benchmarks/results
    python -m benchmarks.grid --motions eightwise --steps 60

Tasks of pocket, each with so many seeds, by the recipe jointtuner_pocket. One after another, each
run is a `jt-run` of its own with an empty cache; the grid is one `jt-run` with an empty cache, and
its launcher that of this machine. Adapters and videos have to be the same bytes. Beside wall-clock
time there is the processor's of all processes, which tells what was computed whatever else the
machine did meanwhile.
"""

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from attrs import frozen

from benchmarks.report import report
from jtcore.tables import write_toml

COMMANDS = Path(sys.executable).parent
SUBJECTS, MOTIONS, SEEDS = ("wug", "dax", "blick"), ("eightwise", "spirals", "squares"), (0, 1, 2)
SAME = ("adapters/*.safetensors", "samples/base/*.mp4", "samples/adapted/*.mp4")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    runs = list(product(given.subjects, given.motions, given.seeds))
    about = f"{len(runs)} runs of jointtuner_pocket in {given.steps} steps, {os.cpu_count()} cores"
    with report("grid", given.out, about) as say, TemporaryDirectory() as name:
        folder = Path(name)
        for subject, motion in product(given.subjects, given.motions):
            draw = ["draw", f"{subject}_{motion}", "--subject", subject, "--motion", motion]
            _call("jt-pocket", *draw, folder=folder)
        apart = measured(lambda: one_after_another(runs, given.steps, folder))
        grid = measured(lambda: together(given, folder))
        say("| | one after another | as a grid | ratio |")
        say("| --- | --- | --- | --- |")
        say(_row("wall-clock time", apart.wall, grid.wall))
        say(_row("processor time", apart.processor, grid.processor))
        say(f"\n{told(apart, grid, len(runs))}")
        odd = differing(folder, [_name(*run) for run in runs])
        say(f"Files that differ, of {' and '.join(SAME)}: {odd or 'none'}.")


@frozen
class Taken:
    """Seconds"""

    wall: float
    processor: float  # of all processes, in their own code and in the kernel's


def measured(work: Callable[[], None]) -> Taken:
    """What the processes that `work` starts and waits for take."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(perf_counter() - began, spent)


def one_after_another(runs: Sequence[tuple[str, str, int]], steps: int, folder: Path) -> None:
    for subject, motion, seed in runs:
        name = _name(subject, motion, seed)
        path = folder / f"{name}.toml"
        path.write_text(write_toml(_recipe(subject, motion, steps) | {"seed": seed}))
        _call("jt-run", path, "--out", f"apart/{name}", folder=folder, cache=f"cache-{name}")


def together(given: argparse.Namespace, folder: Path) -> None:
    table = _recipe("{subject}", "{motion}", given.steps)
    table["axes"] = {"subject": list(given.subjects), "motion": list(given.motions)}
    path = folder / "grid.toml"
    path.write_text(write_toml(table | {"seeds": list(given.seeds)}))
    _call("jt-run", path, "--out", "grid", folder=folder, cache="cache")


def told(apart: Taken, grid: Taken, runs: int) -> str:
    """What bounds the ratio: how busy the cores were, and how much had to be computed."""
    cores = os.cpu_count() or 1
    busy, bound = grid.processor / (cores * grid.wall), apart.wall / (grid.processor / cores)
    return (
        f"A run took {apart.processor / runs:.1f} s of a processor by itself and"
        f" {grid.processor / runs:.1f} s in the grid: {1 - grid.processor / apart.processor:.0%} of"
        f" the work was shared. The grid kept {busy:.0%} of the cores' time; with all of it, the"
        f" ratio would be {bound:.2f}."
    )


def differing(folder: Path, names: Sequence[str]) -> list[str]:
    """Files of the runs that are not the same bytes, or not in both."""
    odd = []
    for name in names:
        both = folder / "apart" / name, folder / "grid" / name
        files = {p.relative_to(run) for run in both for each in SAME for p in run.glob(each)}
        odd += [f"{name}/{file}" for file in sorted(files) if not _same(*(b / file for b in both))]
    return odd


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _recipe(subject: str, motion: str, steps: int) -> dict[str, Any]:
    """jointtuner_pocket on another task."""
    task = f"{subject}_{motion}"
    metrics = ("success", "sprite_identity", "background_leak", "appearance_leak")
    return {
        "base": "jointtuner_pocket",
        "data": {
            "subject": {"source": f"{task}/subject"},
            "motion": {"source": f"{task}/motion"},
            "held_out_subject": {"source": f"{task}/held_out/subject"},
            "held_out_motion": {"source": f"{task}/held_out/motion"},
        },
        "stage": {"joint": {"steps": steps}},
        "sample": {"prompts": f"{task}/prompts.txt"},
        "metric": {name: {"task": task} for name in metrics},
    }


def _name(subject: str, motion: str, seed: int) -> str:
    """The folder of a run, as the grid calls it."""
    return f"{subject}-{motion}-seed{seed}"


def _row(what: str, apart: float, grid: float) -> str:
    return f"| {what} | {apart:.0f} s | {grid:.0f} s | {apart / grid:.2f} |"


def _call(command: str, *given: str | Path, folder: Path, cache: str = "cache") -> None:
    environment: Mapping[str, str] = {**os.environ, "JT_CACHE": str(folder / "caches" / cache)}
    line = [COMMANDS / command, *given, *(["--quiet"] if command == "jt-run" else [])]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stderr}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS)
    parser.add_argument("--motions", nargs="+", default=MOTIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=400, help="of each run")
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
