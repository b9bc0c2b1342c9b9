"""Runs of a grid on this machine, several at once, each in a process of its own."""

import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen
from attrs.validators import ge

from jtcore import hookimpl
from jtcore.grids.jobs import Jobs
from jtcore.grids.work import Outcome, failed
from jtcore.signals import Stop

from ._workers import Slot, Worker

EACH = 2 * 2**30  # bytes of memory that a run is thought to need where nobody says how many at once


@frozen
class Local:
    """Several runs at once on this machine, each with a GPU or cores of its own

    jobs: how many at once; 0: one for each GPU, or without one for each core, as long as there are
        2 GiB of memory for each
    threads: of each run on the CPU; 0: as many as its share of the cores

    A worker does one run after another, so that libraries are imported once. Where one dies, its
    run has failed and another worker takes its place. Each run's `log.txt` has what it says.
    """

    jobs: int = field(default=0, validator=ge(0))
    threads: int = field(default=0, validator=ge(0))

    def launch(self, jobs: Jobs, stop: Stop) -> None:
        slots = self._slots()[: len(jobs.runs)]
        pool = _Pool(jobs, stop)
        at_once = f", {len(slots)} at once" if len(slots) > 1 else ""
        jobs.say(f"{len(jobs.runs)} run{'s' * (len(jobs.runs) > 1)}{at_once}")
        threads = [threading.Thread(target=pool.guard, args=(slot,)) for slot in slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                if stop.asked:
                    pool.end()
        if pool.errors:
            raise pool.errors[0]

    def at_once(self, runs: int) -> int:
        """How many of so many runs are done at once."""
        return min(runs, len(self._slots()))

    def _slots(self) -> list[Slot]:
        """Where runs are done: each with GPUs or cores of its own."""
        cores = own_cores()
        if gpus := visible_gpus():
            count = self.jobs or len(gpus)
            shares = shared_out(cores, count)
            return [
                Slot(share, self.threads, gpus[i % len(gpus)]) for i, share in enumerate(shares)
            ]
        count = self.jobs or max(1, min(len(cores), free_memory() // EACH))
        return [Slot(share, self.threads) for share in shared_out(cores, count)]


def own_cores() -> list[int]:
    """That this process may use; systems other than Linux do not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shared_out(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cores for each of `count`; where there are more of these than cores, they share them."""
    if count >= len(cores):
        return [(cores[i % len(cores)],) for i in range(count)]
    return [tuple(cores[i::count]) for i in range(count)]


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; none without CUDA."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def free_memory() -> int:
    """Bytes that are free on this machine now; all that it has, where the system does not say."""
    told = Path("/proc/meminfo")
    if not told.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = next(line for line in told.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(found.split()[1]) * 1024


class _Pool:
    """Runs that wait, and the workers that do them."""

    def __init__(self, jobs: Jobs, stop: Stop):
        self.jobs, self.stop = jobs, stop
        self.waiting = deque(jobs.runs)
        self.workers: set[Worker] = set()
        self.asked: set[Worker] = set()  # to end
        self.errors: list[BaseException] = []

    def guard(self, slot: Slot) -> None:
        """An error here is no run's: it ends the grid, in the thread that has begun this one."""
        try:
            self.serve(slot)
        except BaseException as error:
            self.errors.append(error)

    def serve(self, slot: Slot) -> None:
        """Have runs done in one place until none is left."""
        worker = None
        while not self.stop.asked:
            try:
                run = self.waiting.popleft()
            except IndexError:
                break
            if worker is None:
                worker = Worker(slot)
                self.workers.add(worker)
            outcome = worker.do(run)
            if outcome is None:
                self.workers.discard(worker)
                outcome = self._died(run, worker.wait())
                worker = None
            self.jobs.ended(run, outcome)
        if worker:
            worker.close()

    def end(self) -> None:
        """Ask every worker, once, to end at its next safe point."""
        for worker in [*self.workers]:
            if worker not in self.asked:
                self.asked.add(worker)
                worker.end()

    def _died(self, run: Path, how: str) -> Outcome:
        if self.stop.asked:
            return Outcome("interrupted")
        return failed(
            run, "killed", [f"its process {how}; its last words are in {run / 'log.txt'}"]
        )


@hookimpl
def jt_launchers():
    return {"local": Local}
