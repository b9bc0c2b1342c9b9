"""Timing things in turn, so that a noisy machine is noisy for all; and what memory each takes."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, process_time
from typing import Any
from weakref import finalize

import torch
from attrs import frozen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Work = Callable[[], object]


@frozen
class Row:
    """One line of the table."""

    what: str
    ours: float
    reference: float
    unit: str

    def __str__(self) -> str:
        ratio = self.ours / self.reference
        return (
            f"| {self.what} | {self.ours:.4g} {self.unit} | {self.reference:.4g} {self.unit}"
            f" | {ratio:.2f} |"
        )


def time_pair(what: str, ours: Work, reference: Work, rounds: int = 9) -> Row:
    """The median seconds of each over alternating rounds, after one that warms up."""
    taken = time_all({"ours": ours, "reference": reference}, rounds)
    return Row(what, median(taken["ours"]), median(taken["reference"]), "s")


def time_all(
    works: Mapping[str, Work], rounds: int, device: torch.device | None = None, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each in every round, in turn, after a round that warms up unless they are `warm`.

    Every other round goes backwards, so that none always follows the same one. On a device "cpu"
    they are the process's own seconds, all threads' together: what others compute is not in them.
    """
    clock = process_time if device is not None and device.type == "cpu" else perf_counter
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(1 if warm else 0, rounds + 1):
        for name in list(works)[:: 1 if number % 2 else -1]:
            wait(device)
            began = clock()
            works[name]()
            wait(device)
            if number:
                taken[name].append(clock() - began)
    return taken


def ratios(taken: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """The median over rounds of each one's seconds over those of `base` in the same round."""
    return {
        name: median(own / other for own, other in zip(each, taken[base], strict=True))
        for name, each in taken.items()
    }


def peak_bytes(work: Work, device: torch.device) -> int:
    """The most that the tensors made in `work` take at once, beside what was there before: as a
    GPU's allocator says, or on a CPU as the storages between operations add up."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _Storages() as storages:
        work()
    return storages.peak


class _Storages(TorchDispatchMode):
    """Adds up the storages that operations answer, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        before = {_storage(leaf)._cdata for leaf in tree_leaves((args, kwargs)) if _is(leaf)}
        answer = func(*args, **(kwargs or {}))
        for leaf in filter(_is, tree_leaves(answer)):
            storage = _storage(leaf)
            if storage._cdata not in before | self.known:
                self._add(storage)
        return answer

    def _add(self, storage: torch.UntypedStorage) -> None:
        size, place = storage.nbytes(), storage._cdata
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


def _is(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
