"""Errors, and random shifts of them that some axes share: what the losses here are made of."""

from collections.abc import Collection

from torch import Generator, Tensor

from jtcore.noise import Axis, draw_shared


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:  # (B, C, F, H, W) twice -> (B,)
    """The mean squared error of each sample."""
    return (prediction - target).square().flatten(1).mean(1)


def draw_shift(like: Tensor, shared: Collection[Axis], std: float, rng: Generator) -> Tensor:
    """N(0, std^2) that varies along the axes not `shared`, with size 1 along those that are; to be
    added to a `like` (B, C, F, H, W). Drawn on the CPU, so that it is the same on every device."""
    return draw_shared(like.shape, shared, std, rng).to(like)


def still_part(error: Tensor) -> Tensor:  # (B, C, F, H, W) -> (B, 1, 1, H, W)
    """P r: the mean over channels and frames, which is all that a shift shared by them can move."""
    return error.mean((1, 2), keepdim=True)
