"""Live bytes and floating point operations of whatever runs on tensors, real or without numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from attrs import Factory, define, frozen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jtcore.planner.flops import flops_of

KEPT, GRADIENTS, WORKING = "kept", "gradients", "working"  # causes
Bytes = dict[str, int]  # by cause


@define
class Segment:
    """The highest moments of a part of a pass"""

    highest: Bytes = Factory(dict)
    highest_over_gradients: Bytes = Factory(dict)


@frozen
class Work:
    """Floating point operations of a pass"""

    forward: float
    recompute: float  # forward again, in backward
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.recompute + self.backward


class Ledger(TorchDispatchMode):
    """Counts each storage that operations make, from its first tensor to its last.

    `outside` are tensors that are not counted, such as weights. Each storage counts in whole
    `grain`s of bytes, and operations may need `workspace` bytes more while they run.
    """

    def __init__(
        self,
        outside: Iterable[Tensor] = (),
        grain: int = 1,
        workspace: Callable[[Any, Sequence[Any]], int] = lambda operation, arguments: 0,
    ) -> None:
        super().__init__()
        self.grain, self.workspace = grain, workspace
        self.causes: dict[int, str | None] = {}  # by storage
        self.sizes: dict[int, int] = {}
        self.live: Bytes = {KEPT: 0, GRADIENTS: 0, WORKING: 0}
        self.segments: dict[str, Segment] = {}
        self.flops = dict.fromkeys(("forward", "recompute", "backward"), 0.0)
        self.backward = False
        self._outside = [tensor.untyped_storage() for tensor in outside]  # or ids would be reused
        self.causes |= {storage._cdata: None for storage in self._outside}
        self.mark("start")

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        found = operation(*args, **(kwargs or {}))
        for tensor in _tensors(found):
            self.add(tensor)
        self._look(self.workspace(operation, args))
        self.flops[self._phase()] += flops_of(operation, args, kwargs or {}, found)
        return found

    def add(self, tensor: Tensor, cause: str = WORKING) -> None:
        """Count a tensor's storage, unless it is counted."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.causes:
            return
        size = -(-storage.nbytes() // self.grain) * self.grain
        self.causes[key], self.sizes[key] = cause, size
        self.live[cause] += size
        weakref.finalize(storage, self._free, key).atexit = False

    def call(self, tensor: Tensor, cause: str) -> None:
        """What a counted tensor counts as from now on."""
        key = tensor.untyped_storage()._cdata
        if (now := self.causes.get(key)) is not None:
            self.live[now] -= self.sizes[key]
            self.live[cause] += self.sizes[key]
            self.causes[key] = cause

    def keep(self) -> None:
        """What is live and was being worked with is kept from now on."""
        working = [key for key, cause in self.causes.items() if cause == WORKING]
        self.causes |= dict.fromkeys(working, KEPT)
        self.live[KEPT] += self.live[WORKING]
        self.live[WORKING] = 0

    def mark(self, name: str) -> None:
        """A segment begins, or goes on."""
        self.segment = self.segments.setdefault(name, Segment())
        self._look(0)

    @property
    def highest(self) -> int:
        """Bytes at the most."""
        return max(sum(each.highest.values()) for each in self.segments.values())

    @property
    def work(self) -> Work:
        return Work(**self.flops)

    def _look(self, more: int) -> None:
        live, segment = self.live, self.segment
        if sum(live.values()) + more > sum(segment.highest.values()):
            segment.highest = live | {WORKING: live[WORKING] + more}
        without = live[KEPT] + live[WORKING] + more
        if without > sum(segment.highest_over_gradients.values()):
            segment.highest_over_gradients = {KEPT: live[KEPT], WORKING: live[WORKING] + more}

    def _free(self, key: int) -> None:
        self.live[self.causes.pop(key)] -= self.sizes.pop(key)

    def _phase(self) -> str:
        """Backward itself is run without gradients, what it recomputes with them."""
        if not self.backward:
            return "forward"
        return "recompute" if torch.is_grad_enabled() else "backward"


def _tensors(found: Any) -> Iterable[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for each in found:
            yield from _tensors(each)
