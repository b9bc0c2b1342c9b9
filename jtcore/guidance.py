"""Classifier-free guidance (https://arxiv.org/abs/2207.12598): how far a prompt is followed."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def guide(answers: Tensor, guidance: float) -> Tensor:  # (2 B, ...) -> (B, ...)
    """Away from the first half of `answers`, those to the negative prompt, towards the other."""
    away, towards = answers.chunk(2)
    return away + guidance * (towards - away)


def cosine_guidance(guidance: float, steps: int, time: float) -> float:
    """The strength at `time` of a sampling in `steps`, as diffusers' pipeline for CogVideoX has it
    with `use_dynamic_cfg`: 1 + guidance * (1 - cos(pi * ((steps - time) / steps)^5)) / 2.

    It is meant to rise from 1 to 1 + guidance. But `time` is not the number of the step there, it
    is the schedule's own, 999 at first: while it is above `steps`, the strength swings between
    those ends, the faster the noisier, and only then rises. Published figures were made with that,
    so it is computed the same here. Where times are no such numbers it does little: flows that
    count them in [0, 1] have 1 + guidance all the way.
    """
    return 1 + guidance * ((1 - cos(pi * ((steps - time) / steps) ** 5)) / 2)
