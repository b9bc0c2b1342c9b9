"""Randomness as a function of names: (seed, stage, step, ...) always draws the same.

A run that is resumed at a step therefore replays it exactly, with no state to save.
"""

import hashlib
from random import Random

import torch


def seed_of(*path: int | str) -> int:
    """63 bits of a hash of the path."""
    digest = hashlib.sha256("\0".join(map(str, path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*path: int | str) -> torch.Generator:
    """A CPU generator, so that what it draws does not depend on the device."""
    return torch.Generator().manual_seed(seed_of(*path))


def shared_random(*path: int | str) -> Random:
    """For choices of which branch, frame or drop, alike on every rank."""
    return Random(seed_of("shared", *path))
