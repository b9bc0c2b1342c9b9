"""The processes of one run: who they are, and how they agree.

A launcher starts them and tells each its place in environment variables: torchrun and DeepSpeed's
launcher RANK and others, srun SLURM_PROCID and others. Without a launcher there is one process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from attrs import frozen

from jtcore.errors import Interrupted, JtError

if TYPE_CHECKING:
    from torch import Tensor

LONG = timedelta(days=30)  # that one process may keep the others waiting, as it does with encoding
PLACES = (  # rank, size and rank on the machine, as launchers name them
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
PORTS = range(20_000, 60_000)  # of which Slurm's job number chooses
ENDED = "ended"  # the key under which the first process that fails says how
LEFT = "left"  # that of how many have left
STOPPED = "stopped"
PATIENCE = 30  # s, for others to read how the first has failed


@frozen
class Place:
    """Which of how many processes this is, and which of those on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def place_of(environment: Mapping[str, str]) -> Place:
    """What a launcher has said. Raises JtError where it has not said all."""
    for names in PLACES:
        if all(name in environment for name in names):
            return Place(*(int(environment[name]) for name in names))
    if environment.get("WORLD_SIZE", "1") != "1":
        raise JtError(
            "WORLD_SIZE is set, but not RANK and LOCAL_RANK; start the processes with torchrun,"
            " deepspeed or srun"
        )
    return Place()


def meeting_point(environment: Mapping[str, str]) -> tuple[str, str]:
    """The address and port where processes find each other. Raises JtError where none is told."""
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    nodes = environment.get("SLURM_STEP_NODELIST")
    if nodes:
        job = int(environment.get("SLURM_JOB_ID", "0"))
        host, port = host or first_node(nodes), port or str(PORTS[job % len(PORTS)])
    if not host or not port:
        raise JtError("several processes need MASTER_ADDR and MASTER_PORT; launchers set them")
    return host, port


def first_node(nodes: str) -> str:
    """The first of Slurm's list: `gpu07` of `gpu[07-09,12],big1`."""
    prefix, number, suffix = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes).groups()
    return prefix + (number or "") + (suffix or "")


class Processes:
    """How the processes of a run agree; alone, each answer is one's own.

    What they say to each other here is small and on the host, so that no device waits. Gradients
    go another way: see the engines.
    """

    def __init__(self, place: Place):
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank
        self._talk: Any = None  # torch's process group of hosts
        self._store: Any = None  # what all can write to, also when the group has gone

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files, samples, measures and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What every process says, by rank."""
        if self.alone:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, self._talk)
        return found

    def any(self, said: bool) -> bool:
        """Whether some process says so."""
        return any(self.gather(said))

    def of_leader(self, value: Any) -> Any:
        """What the first process says."""
        return self.gather(value)[0]

    def joined(self, part: Tensor) -> Tensor | None:  # (N,) on the host -> (N * size,)
        """What all processes have, one after another: on the first; None on the others."""
        if self.alone:
            return part
        import torch
        from torch import distributed

        parts = [torch.empty_like(part) for _ in range(self.size)] if self.leads else None
        distributed.gather(part, parts, dst=0, group=self._talk)
        return torch.cat(parts) if parts else None

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The first process does the block, and then all the others."""
        if not self.leads:
            self.gather(None)
        yield
        if self.leads:
            self.gather(None)

    def meet(self) -> None:
        """Form torch's process group. Raises JtError where the launcher has not said where."""
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        host, port = meeting_point(os.environ)
        os.environ |= {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }
        store = next(rendezvous("env://"))[0]
        self._store = distributed.PrefixStore("jtcore", store)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.size,
        )
        self._talk = distributed.new_group(backend="gloo", timeout=LONG)

    def part(self, failed: bool) -> None:
        """Leave the group: the others see it at once, where they wait for this one. The first keeps
        what all write to, and waits for them where they have yet to read how it has `failed`."""
        from torch import distributed

        self._talk = None
        distributed.destroy_process_group()
        with suppress(RuntimeError):
            left = self._store.add(LEFT, 1)
            deadline = monotonic() + PATIENCE
            while failed and self.leads and left < self.size and monotonic() < deadline:
                sleep(0.1)
                left = self._store.add(LEFT, 0)

    def ends(self, how: str) -> str:
        """How the first process that failed has ended: this one, if it is the first to ask."""
        mine = f"{self.rank} {how}"
        try:
            said = self._store.compare_set(ENDED, "", mine).decode()
        except RuntimeError:  # the process that kept it has gone, and waited for nobody
            return ""
        return "" if said == mine else said.partition(" ")[2]


ALONE = Processes(Place())


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that a launcher has started, until the block is left.

    Where one fails, the others, which cannot go on, end as it does; only one tells why.
    """
    place = place_of(os.environ)
    if place.size == 1:
        yield ALONE
        return
    processes = Processes(place)
    processes.meet()
    failed = True
    try:
        yield processes
        failed = False
    except Interrupted:
        processes.ends(STOPPED)
        raise
    except Exception as error:
        first = processes.ends("error")
        if first == STOPPED:
            raise Interrupted from error
        if first:
            raise JtError([]) from error  # told already
        if isinstance(error, RuntimeError) and "onnection" in str(error):
            raise JtError(
                f"process {place.rank}: another process of this run has gone without a word, as one"
                " does that is killed; what is on disk can be resumed"
            ) from error
        raise
    finally:
        processes.part(failed)
