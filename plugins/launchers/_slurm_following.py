"""Jobs of Slurm followed until all have ended."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jtcore.errors import JtError
from jtcore.grids.jobs import Jobs
from jtcore.grids.state import read_failure, state_of
from jtcore.grids.work import Outcome, failed
from jtcore.proceed import shown
from jtcore.signals import Stop

from ._slurm_queue import Job, Queue, arrays, how_it_died

BREATH = 0.2  # s between looks at whether a signal has come


def follow(runs: Sequence[Path], queue: Queue, jobs: Jobs, poll: float, stop: Stop) -> None:
    """Tell of runs until all have ended, or `stop` is asked, which leaves the jobs alone.

    poll: s between looks at the queue
    """
    following = _Following(jobs, queue)
    left = list(runs)
    while left := following.still_to_end(left):
        began = time.monotonic()
        while not stop.asked and time.monotonic() - began < poll:
            time.sleep(BREATH)
        if stop.asked:
            numbers = arrays(following.last[run].number for run in left if run in following.last)
            jobs.say(
                "the jobs go on without this; to follow them again:"
                f" jt-run --resume {shown(jobs.grid)} --follow\n"
                f"to end them: scancel {' '.join(numbers)}"
            )
            return


class _Following:
    """What was seen of jobs at the last look."""

    def __init__(self, jobs: Jobs, queue: Queue):
        self.jobs, self.queue = jobs, queue
        self.last: dict[Path, Job] = {}
        self.is_silent = False  # Slurm's controller

    def still_to_end(self, runs: Sequence[Path]) -> list[Path]:
        """Look once, and tell what has changed."""
        found = self._look(runs)
        left = [run for run in runs if run not in found or not self._has_ended(run, found[run])]
        self.last |= found
        return left

    def _look(self, runs: Sequence[Path]) -> Mapping[Path, Job]:
        """Nothing where Slurm does not answer: that is told once, and it is asked again."""
        try:
            found = self.queue.look(runs)
        except JtError as error:
            if not self.is_silent:
                self.jobs.say(f"{error}; asking again")
            self.is_silent = True
            return {}
        self.is_silent = False
        return found

    def _has_ended(self, run: Path, job: Job) -> bool:
        if job.alive:
            self._tell(run, job)
            return False
        outcome = _as_its_folder_says(run) or self._as_slurm_says(run, job)
        if outcome:
            self.jobs.ended(run, outcome)
        return outcome is not None

    def _as_slurm_says(self, run: Path, job: Job) -> Outcome | None:
        """Where it says so twice, for the last files may be on their way from another machine."""
        before = self.last.get(run)
        if before is None or before.alive or state_of(run) == "running":
            return None
        outcome = how_it_died(job)
        if outcome.state == "failed":
            return failed(run, "killed", outcome.problems)
        return outcome

    def _tell(self, run: Path, job: Job) -> None:
        before = self.last.get(run)
        if before is None or before.state != job.state:
            again = " again" if before and job.state == "PENDING" else ""
            where = f" on {job.nodes}" if job.nodes and job.state == "RUNNING" else ""
            self.jobs.say(f"{run.name}: job {job.number} is {job.state.lower()}{again}{where}")


def _as_its_folder_says(run: Path) -> Outcome | None:
    state = state_of(run)
    if state == "finished":
        return Outcome("finished")
    if state == "failed":
        return Outcome("failed", read_failure(run).problems)
    return None
