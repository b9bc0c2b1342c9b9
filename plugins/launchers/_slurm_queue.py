"""Which job of Slurm does which run, and what Slurm says of it.

A grid's `slurm/jobs.json` knows each submission by a name that no other has, written down before
sbatch is asked: whatever dies between is found in the queue again.
"""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from jtcore.errors import JtError
from jtcore.grids.work import Outcome
from jtcore.run import read_json, write_json

FOLDER = "slurm"  # of a grid, with what jobs say and what submitit writes
INDEX = "jobs.json"
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
FIELDS = "%j|%F|%K|%T|%N"  # name, array, place in it, state, nodes


@frozen
class Job:
    """A job as Slurm has it; `state` is None where Slurm knows nothing of it (any more)."""

    state: str | None = None
    number: str | None = None  # "12_3", or "12" where it is no array
    nodes: str = ""
    log: Path | None = None

    @property
    def alive(self) -> bool:
        """Whether it waits, runs, or is to run again."""
        return self.state is not None and self.state not in ENDED

    @property
    def left_work(self) -> bool:
        """Whether there was a job, and it has gone without doing all that it was to do."""
        return self.number is not None and not self.alive and self.state != "COMPLETED"


class Queue:
    """The jobs of a grid."""

    def __init__(self, grid: Path):
        self.folder = grid / FOLDER
        self.folder.mkdir(exist_ok=True)

    def look(self, runs: Sequence[Path]) -> dict[Path, Job]:
        """What has become of the job of each run. Raises JtError where squeue does not answer."""
        known = self._known()
        entries = {run: known[run.name] for run in runs if run.name in known}
        names = {entry["name"] for entry in entries.values()}
        states = _asked_squeue(names) if names else {}
        if lost := names - {name for name, _ in states}:
            states |= _asked_sacct(lost)
        return {run: self._job(entries.get(run), states) for run in runs}

    @contextmanager
    def submission(
        self, name: str, runs: Sequence[Path]
    ) -> Iterator[Callable[[Sequence[str]], None]]:
        """Remember that runs are being submitted under a name; the function that is yielded takes
        their jobs' numbers. Where the block raises, they have not been."""
        before = self._known()
        entries = {
            run.name: {"name": name, "index": index, "job": None} for index, run in enumerate(runs)
        }

        def submitted(numbers: Sequence[str]) -> None:
            for entry, number in zip(entries.values(), numbers, strict=True):
                entry["job"] = number
            write_json(self.folder / INDEX, before | entries)

        write_json(self.folder / INDEX, before | entries)
        try:
            yield submitted
        except JtError:
            write_json(self.folder / INDEX, before)
            raise

    def _known(self) -> dict[str, Any]:
        return read_json(self.folder / INDEX) or {}

    def _job(self, entry: Mapping[str, Any] | None, states: Mapping[tuple[str, int], Job]) -> Job:
        if entry is None:
            return Job()
        found = states.get((entry["name"], entry["index"]))
        number = found.number if found else entry["job"]
        log = self.folder / f"{number}_0_log.out" if number else None
        return Job(found and found.state, number, found.nodes if found else "", log)


def arrays(numbers: Iterable[str]) -> list[str]:
    """What scancel and squeue take for jobs: the number of each array, once."""
    return list(dict.fromkeys(number.partition("_")[0] for number in numbers))


def how_it_died(job: Job) -> Outcome:
    """Of a job that has gone before its run was finished, or had said why it failed."""
    words = f"; its last words are in {job.log}"
    name = f"its job {job.number}"
    if job.state in ("CANCELLED", "PREEMPTED"):  # and the cluster does not queue it again
        return Outcome("interrupted", (f"{name} was {job.state.lower()}",))
    if job.state == "TIMEOUT":
        why = f"{name} was killed at its time limit before it had saved itself; raise launch.notice"
    elif job.state is None:
        why = f"{name} has left the queue without a result{words}"
    else:
        why = f"{name} ended as {job.state}{words}"
    return Outcome("failed", (why,))


def _asked_squeue(names: set[str]) -> dict[tuple[str, int], Job]:
    """Jobs by submission and place in it: those that wait or run, and those that have ended within
    the last minutes."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--format={FIELDS}"]
    ended = _answer([*command, f"--name={','.join(sorted(names))}"])
    if ended.returncode:
        raise JtError(f"squeue: {ended.stderr.strip() or f'status {ended.returncode}'}")
    found = {}
    for line in ended.stdout.splitlines():
        name, array, index, state, nodes = line.strip().split("|")
        is_array = index.isdigit()
        number = f"{array}_{index}" if is_array else array
        found[name, int(index) if is_array else 0] = Job(state, number, nodes)
    return found


def _asked_sacct(names: set[str]) -> dict[tuple[str, int], Job]:
    """Of jobs that have long ended: none where the cluster keeps no accounts."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-30days"]
    command += ["--format=JobName%100,JobID,State,NodeList", f"--name={','.join(sorted(names))}"]
    try:
        lines = _answer(command).stdout.splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        name, number, state, nodes = line.split("|")
        index = number.partition("_")[2]
        if not index or index.isdigit():
            # "CANCELLED by 1000"
            found[name, int(index or 0)] = Job(state.partition(" ")[0], number, nodes)
    return found


def _answer(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    told = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(command, capture_output=True, text=True, env=told)
