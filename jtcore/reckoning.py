"""Which kind of device is reckoned with: the planner's tensors, which have no numbers, are on a CPU
whatever they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RECKONED: ContextVar[str | None] = ContextVar("reckoned", default=None)


def kind_of(device: torch.device) -> str:
    """ "cpu", "cuda": for code that takes another way on one of them."""
    return _RECKONED.get() or device.type


@contextmanager
def reckoned_as(kind: str) -> Iterator[None]:
    """All devices are taken for one of a kind."""
    before = _RECKONED.set(kind)
    try:
        yield
    finally:
        _RECKONED.reset(before)
