"""What a grid ends in: `grid.csv`, `grid.md`, `grid.html`, and what TensorBoard shows of it."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.grids.effects import all_effects, statements
from jtcore.grids.grid import read_grid
from jtcore.grids.hparams import write_hparams
from jtcore.grids.page import write_page
from jtcore.grids.readings import read_runs
from jtcore.grids.shown import Shown
from jtcore.grids.tables import brief, csv_text, markdown

EVERY = 60.0  # s


def write_results(folder: Path) -> str:
    """Write what the runs of a grid have come to so far; returns what a terminal is told of it.

    May be called at any time and by several processes at once: who comes later waits, and reads
    what is there by then. Raises JtError where it is no grid's folder.
    """
    grid = read_grid(folder)
    if grid is None:
        raise JtError(f"{folder}: is not the folder of a grid: it has no grid.json")
    with _alone(folder):
        readings = read_runs(folder, grid)
        effects = all_effects(grid, readings)
        said = statements(effects)
        write_text(folder / "grid.csv", csv_text(grid, readings))
        text = markdown(grid, readings, said)
        write_text(folder / "grid.md", text)
        write_hparams(folder, grid, readings, text)
        write_page(Shown(folder, grid, readings, effects, said))
    return brief(grid, readings, said)


def refresh_results(folder: Path) -> None:
    """Write results while runs go on, unless that was done within the last minute: it takes about a
    second of a grid of 135 runs. What hinders it is told where results are written in the end."""
    try:
        age = time.time() - (folder / "grid.csv").stat().st_mtime
    except FileNotFoundError:
        age = inf
    if not 0 <= age < EVERY:
        with suppress(OSError, JtError):
            write_results(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".results.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
