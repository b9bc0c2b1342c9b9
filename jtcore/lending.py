"""Encoders are lent: loaded at the first need, and gone when the loan ends."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Loaded = TypeVar("Loaded")


@contextmanager
def lent(load: Callable[[], Loaded], device: torch.device) -> Iterator[Callable[[], Loaded]]:
    """A function that answers what `load` makes on `device`, loaded when it is first called.

    Networks of some libraries refer to themselves, so that nothing but a collection frees them; it
    may not come before the next large network does.
    """
    made: list[Loaded] = []

    def get() -> Loaded:
        if not made:
            made.append(load())
        return made[0]

    try:
        yield get
    finally:
        if made:
            made.clear()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
