"""What a launcher is given: runs to be done, and whom to tell."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

from jtcore.grids.work import Outcome
from jtcore.processes import ALONE, Processes
from jtcore.signals import Stop


@frozen(eq=False)
class Jobs:
    """Runs of a grid that are to be done.

    grid, runs: absolute folders; the runs in order
    say: one line to whoever watches
    ended: to be told of each run that has ended, at once and from any thread
    follow: whether to wait for runs that are done elsewhere
    """

    grid: Path
    runs: Sequence[Path]
    say: Callable[[str], None]
    ended: Callable[[Path, Outcome], None]
    follow: bool = False
    quiet: bool = False
    processes: Processes = ALONE


class Launcher(Protocol):
    """Does runs, or sees to it that they are done; its fields are the options of `[launch]`.

    A class may have `problems(self) -> Iterable[str]`: what this machine lacks, told by `--check`
    and before anything is made; and `at_once(self, runs: int) -> int`: how many of so many runs are
    done at the same time, for `--dry-run`.
    """

    def launch(self, jobs: Jobs, stop: Stop) -> None:
        """Have every run done by `jtcore.grids.work.do`. One that fails leaves the others be.

        Where `stop` is asked, returns as soon as runs can be continued. Raises JtError where runs
        cannot be begun at all.
        """
