"""One run of a grid done, wherever that is: in this process, in a worker, in a job of a cluster."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import torch
from attrs import frozen

from jtcore.errors import Interrupted, JtError
from jtcore.grids.state import Kind, forget_failure, write_failure
from jtcore.proceed import proceed_run
from jtcore.processes import Processes, together
from jtcore.run import Run, RunIsBusyError
from jtcore.signals import Stop, stop_on_signals

PATIENCE = 60.0  # s, for a process of an earlier launch that is about to end


@frozen
class Outcome:
    """How it ended; `problems` are of what failed."""

    state: Literal["finished", "interrupted", "failed"]
    problems: tuple[str, ...] = ()


def do(folder: Path, say: Callable[[str], None] = print, stop: Stop | None = None) -> Outcome:
    """Begin or continue a run, with all processes that a launcher such as srun has started for it.
    SIGTERM and SIGINT end it at the next safe point.

    Never raises for what a run may die of: that is told in the outcome and in the run's folder.
    """
    try:
        with (
            _own_threads(),
            together() as processes,
            stop_on_signals() if stop is None else nullcontext(stop) as stop,
        ):
            _proceed(folder, say, stop, processes)
    except Interrupted:
        return Outcome("interrupted")
    except RunIsBusyError as error:  # whose failure it is not
        return Outcome("interrupted", error.problems)
    except JtError as error:
        if not error.problems:  # another process of the run tells them
            return Outcome("failed")
        return failed(folder, "mistake", error.problems)
    except OSError as error:  # a full disk
        return failed(folder, "error", [str(error)])
    except Exception as error:  # whatever a run dies of, the others live on
        traceback.print_exc(file=sys.stderr)
        return failed(folder, "error", [f"{type(error).__name__}: {error}"])
    return Outcome("finished")


@contextmanager
def _own_threads() -> Iterator[None]:
    """How many threads a recipe asks for is its own affair, not that of the next run here."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def failed(folder: Path, kind: Kind, problems: Sequence[str]) -> Outcome:
    """Say in a run's folder why it failed; a disk may be too full even for that."""
    with suppress(OSError):
        write_failure(folder, kind, problems)
    return Outcome("failed", tuple(problems))


def _proceed(folder: Path, say: Callable[[str], None], stop: Stop, processes: Processes) -> None:
    """Wait for a process that is about to leave the run, and do the run."""
    began = time.monotonic()
    run = Run(folder, say if processes.leads else _silence, quiet=True, processes=processes)
    while True:
        if processes.alone:
            stop.check()
        try:
            proceed_run(run, stop, forget_failure)
            return
        except RunIsBusyError:  # which one of several processes cannot wait for alone
            if not processes.alone or time.monotonic() - began > PATIENCE:
                raise
            time.sleep(0.2)


def _silence(line: str) -> None:
    pass
