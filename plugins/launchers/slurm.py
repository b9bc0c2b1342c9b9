"""Runs of a grid as jobs of a Slurm cluster: one array, submitted through submitit."""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, optional

from jtcore import hookimpl
from jtcore.errors import JtError
from jtcore.grids.jobs import Jobs
from jtcore.grids.state import forget_failure, state_of
from jtcore.proceed import shown
from jtcore.run import locked
from jtcore.signals import Stop

from ._slurm_following import follow
from ._slurm_job import Work
from ._slurm_queue import FOLDER, Job, Queue, arrays, how_it_died

PROGRAMS = ("sbatch", "srun", "squeue")
OURS = {  # parameters of sbatch that are options of their own
    **{name: name for name in ("partition", "account", "qos", "constraint")},
    "time": "hours",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
    "mem": "memory",
    "array": "jobs",
    "signal": "notice",
}
FIXED = (
    *("output", "error", "open-mode", "job-name", "requeue", "no-requeue", "nodes", "ntasks"),
    *("ntasks-per-node", "parsable", "wait", "test-only", "wrap"),
)

EARLY = 60  # s by which Slurm may be early with a signal
# until Python listens: who dies of the first signal of a preemption is not queued again
DEAF = """sh -c 'trap "" TERM; exec "$@"' sh"""


def _are_parameters(instance: object, attribute: Attribute, value: Mapping[str, Any]) -> None:
    for name, given in value.items():
        plain = name.replace("_", "-")
        if plain in OURS:
            raise ValueError(f"leave out {name}: it is what launch.{OURS[plain]} says")
        if plain in FIXED:
            raise ValueError(f"leave out {name}: the launcher says it")
        if given is False or not isinstance(given, str | int | float):
            raise ValueError(f"{name}: expected a text, a number or true, got {given!r}")


def _are_commands(instance: object, attribute: Attribute, value: Sequence[str]) -> None:
    for line in value:
        if line.lstrip().startswith("#SBATCH"):
            raise ValueError(f"{line!r} is no command; parameters go to launch.sbatch")


def _is_name(instance: object, attribute: Attribute, value: str | None) -> None:
    if value is not None and not value.strip():
        raise ValueError(f"expected a name, or nothing for the cluster's own, got {value!r}")


@frozen
class Slurm:
    """Runs as jobs of a Slurm cluster: one array, through submitit

    partition, account, qos, constraint: as sbatch has them; without them, the cluster's own
    hours: time limit of a job; a run that takes longer is saved and its job queued again
    gpus: of each run, all on one machine, with a process for each
    cpus: cores of each process
    memory: GB of each run; without it, the cluster's own
    jobs: how many at once; 0: as many as the cluster lets
    notice: seconds before the time limit at which a run is told to save itself; more than a step
        of training or one sampled video takes
    timeouts: how often a job that came to its time limit is queued again
    setup: lines of shell before each run, such as "module load cuda"
    sbatch: other parameters of sbatch by their long names, such as {mail-type = "END"}
    poll: seconds between looks at the queue, with --follow

    A job that the cluster preempts is saved and queued again too. What jobs say is in the grid's
    folder `slurm`.
    """

    partition: str | None = field(default=None, validator=_is_name)
    account: str | None = field(default=None, validator=_is_name)
    qos: str | None = field(default=None, validator=_is_name)
    constraint: str | None = field(default=None, validator=_is_name)
    hours: float = field(default=24.0, validator=gt(0))
    gpus: int = field(default=1, validator=ge(0))
    cpus: int = field(default=4, validator=ge(1))
    memory: float | None = field(default=None, validator=optional(gt(0)))
    jobs: int = field(default=0, validator=ge(0))
    notice: int = field(default=300, validator=ge(1))
    timeouts: int = field(default=20, validator=ge(0))
    setup: tuple[str, ...] = field(default=(), validator=_are_commands)
    sbatch: Mapping[str, Any] = field(factory=dict, validator=_are_parameters)
    poll: float = field(default=30.0, validator=gt(0))

    def __attrs_post_init__(self) -> None:
        if self.notice + EARLY >= 60 * self.minutes:
            raise ValueError(
                f"notice of {self.notice} s, which Slurm may give {EARLY} s earlier, leaves nothing"
                f" of hours = {self.hours:g}"
            )

    @property
    def minutes(self) -> int:
        """The time limit as sbatch has it."""
        return math.ceil(round(60 * self.hours, 6))

    def problems(self) -> Iterator[str]:
        """What this machine lacks to submit jobs."""
        if find_spec("submitit") is None:
            yield "kind 'slurm' needs submitit; pip install jtcore[slurm]"
        if lacking := [name for name in PROGRAMS if shutil.which(name) is None]:
            yield (
                f"kind 'slurm' finds no {', '.join(lacking)} on PATH; start jt-run where jobs of"
                " the cluster are submitted, or take kind 'local' for this machine"
            )

    def at_once(self, runs: int) -> int | None:
        """None: as many as the cluster lets."""
        return min(self.jobs, runs) or None

    def launch(self, jobs: Jobs, stop: Stop) -> None:
        """Submit the runs that are not in the queue. Raises JtError where Slurm refuses."""
        if any(run.name == FOLDER for run in jobs.runs):
            raise JtError(f"launch: jobs have the folder {FOLDER}; call that run something else")
        queue = Queue(jobs.grid)
        with locked(queue.folder):
            before = queue.look(jobs.runs)
            there = [run for run in jobs.runs if before[run].alive]
            absent = [run for run in jobs.runs if not before[run].alive]
            waiting = [run for run in absent if state_of(run) != "running"]
            for line in _told(there, absent, before):
                jobs.say(line)
            numbers = [before[run].number for run in there]
            numbers += self._submit(waiting, queue, jobs) if waiting else []
        if jobs.follow:
            follow([*there, *waiting], queue, jobs, self.poll, stop)
        elif numbers:
            jobs.say(_directions(jobs.grid, queue.folder, arrays(numbers)))

    def _submit(self, runs: Sequence[Path], queue: Queue, jobs: Jobs) -> list[str]:
        """As one array; returns the numbers of its jobs. Raises JtError with what sbatch says where
        it refuses."""
        from submitit.core.utils import FailedJobError
        from submitit.helpers import clean_env, environment_variables
        from submitit.slurm.slurm import SlurmExecutor

        name = f"jt-{re.sub(r'[^A-Za-z0-9_.]', '_', jobs.grid.name)}-{secrets.token_hex(4)}"
        python = f"{DEAF} {shlex.quote(sys.executable)}"
        executor = SlurmExecutor(queue.folder, self.timeouts, python=python)
        executor.update_parameters(**self.parameters(name, len(runs)))
        cluster = {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
        for run in runs:
            forget_failure(run)  # of the time before, and not of this one
        with queue.submission(name, runs) as submitted:
            try:
                with clean_env(), environment_variables(**cluster):  # where this is a job itself
                    found = executor.map_array(Work(jobs.grid), list(runs))
            except FailedJobError as error:
                raise JtError(f"launch: sbatch refuses the jobs: {_gist(str(error))}") from error
            numbers = [job.job_id for job in found]
            submitted(numbers)
        as_job = f"as job {arrays(numbers)[0]}"
        jobs.say(f"{len(runs)} run{'s' * (len(runs) > 1)} submitted {as_job}")
        return numbers

    def parameters(self, name: str, runs: int) -> dict[str, Any]:
        """What submitit is told."""
        memory = None if self.memory is None else f"{math.ceil(1024 * self.memory)}M"
        threads = f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{self.cpus}}}"'
        return {
            "job_name": name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.minutes,
            "nodes": 1,
            "ntasks_per_node": max(1, self.gpus),
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": memory,
            "array_parallelism": self.jobs or runs,
            "signal_delay_s": self.notice,
            "setup": [threads, *self.setup],
            "stderr_to_stdout": True,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # Slurm 22.05 and later forget it
            "additional_parameters": {"requeue": True, **self.sbatch},
        }


def _told(
    there: Sequence[Path], absent: Sequence[Path], before: Mapping[Path, Job]
) -> Iterator[str]:
    """What has become of runs, before any is submitted."""
    if there:
        yield f"{len(there)} run{'s are' if len(there) > 1 else ' is'} queued or running already"
    for run in absent:
        state = state_of(run)
        if state == "running":
            yield f"  {run.name}: is being done by a process that is no job, and left to it"
        elif before[run].left_work and state != "failed":
            yield f"  {run.name}: {how_it_died(before[run]).problems[0]}"


def _directions(grid: Path, logs: Path, numbers: Sequence[str]) -> str:
    return (
        f"to watch the jobs: squeue --jobs {','.join(numbers)}\n"
        f"to wait for them: jt-run --resume {shown(grid)} --follow\n"
        f"to end them: scancel {' '.join(numbers)}\n"
        f"what they say: {shown(logs)}"
    )


def _gist(told: str) -> str:
    """Of what sbatch says, the lines that are errors."""
    lines = [line.strip() for line in told.splitlines() if "error:" in line]
    return "; ".join(line.partition("error: ")[2] for line in lines) or told.strip()


@hookimpl
def jt_launchers() -> Mapping[str, type]:
    return {"slurm": Slurm}
