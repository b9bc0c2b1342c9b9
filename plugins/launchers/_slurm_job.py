"""What a job of Slurm does: one run, saved and queued again where its time is up.

Slurm tells a job that its time is nearly up with SIGUSR2, at which submitit would leave at once;
and that it is cancelled, requeued or preempted with SIGTERM, at the end of a preemption's time of
grace once more, and then with SIGKILL. Here all of them ask for the next safe point, and only there
submitit's own handler queues the job again: where its time is up, and where it is preempted, for
Slurm itself queues only those again that have not ended within the time of grace.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from jtcore.grids.grid import run_folders
from jtcore.grids.results import write_results
from jtcore.grids.state import state_of, write_failure
from jtcore.grids.work import do
from jtcore.options import INTERRUPTED, MISTAKE
from jtcore.processes import place_of
from jtcore.signals import SIGNALS, Stop
from jtcore.surroundings import arrange

from ._workers import LOG

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


@frozen
class Work:
    """Does a run of a grid in a job, which ends with the exit status of jt-run"""

    grid: Path

    def __call__(self, run: Path) -> None:
        stop = _Patience()
        stop.listen()
        arrange()
        leads = place_of(os.environ).rank == 0
        if leads:
            _link_log(run)
        outcome = do(run, _say, stop)
        if outcome.problems:
            print("\n".join(outcome.problems), file=sys.stderr, flush=True)
        if not leads:  # whose exit status could have Slurm kill the first
            return
        if outcome.state == "interrupted":
            if stop.time_is_up or _is_running():
                self._queue_again(run, stop)
            sys.exit(INTERRUPTED)
        self._compare()
        if outcome.state == "failed":
            sys.exit(MISTAKE)

    def checkpoint(self, run: Path) -> DelayedSubmission:
        """What submitit queues in place of this: the same, for the run's folder has the rest."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, run)

    def _queue_again(self, run: Path, stop: _Patience) -> None:
        from submitit.core.utils import UncompletedJobError

        try:
            stop.submitits(stop.time_signal, None)
        except UncompletedJobError:
            problem = "its job came to its time limit once more than launch.timeouts allows"
            write_failure(run, "killed", [f"{problem}; what it has done is kept"])

    def _compare(self) -> None:
        """The last job of a grid leaves its tables behind."""
        runs = [run for run in run_folders(self.grid) if (run / "run.json").is_file()]
        if all(state_of(run) in ("finished", "failed") for run in runs):
            write_results(self.grid)


class _Patience(Stop):
    """Only the first signal counts: Slurm may repeat them, and means it with SIGKILL alone."""

    def __init__(self):
        from submitit import JobEnvironment

        super().__init__()
        self.time_signal = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        self.time_is_up = False
        self.submitits = signal.getsignal(self.time_signal)  # which queues the job again

    def listen(self) -> None:
        """From now on, to the end of the process."""
        for number in (*SIGNALS, self.time_signal):
            signal.signal(number, self.ask)

    def ask(self, number: int, frame: object) -> None:
        self.time_is_up |= number == self.time_signal
        if not self.asked:
            super().ask(number, frame)


def _link_log(run: Path) -> None:
    """What a run says is found in its folder too, unless it has said something elsewhere."""
    from submitit import JobEnvironment

    link = run / LOG
    if link.is_symlink():  # of an earlier job
        link.unlink()
    if not link.exists():
        link.symlink_to(os.path.relpath(JobEnvironment().paths.stdout, run))


def _is_running() -> bool:
    """Whether Slurm has not ended this job: then it is preempted, and has some time of grace."""
    from submitit import JobEnvironment

    job = JobEnvironment().job_id
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return ended.stdout.strip() == "RUNNING"


def _say(line: str) -> None:
    print(line, flush=True)
