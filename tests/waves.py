"""Videos of waves that move in a known way, and what metrics say of them."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jtcore.types import Sample

CPU = torch.device("cpu")
HEIGHT, WIDTH = 96, 128
RIGHT = (3.0, 1.0)  # px a frame


@cache
def moving(step: tuple[float, float], frames: int = 6, texture: int = 0) -> Tensor:
    """(3, F, HEIGHT, WIDTH): waves in all directions, which a step moves right and down exactly."""
    waves, sines, cosines = _texture(texture)
    angles = np.arange(frames)[:, None] * (waves @ step)  # (F, N): sin(a - b), by the sum formula
    moved = np.einsum("fcn,cnhw->cfhw", np.cos(angles).reshape(frames, 3, -1), sines, optimize=True)
    moved -= np.einsum(
        "fcn,cnhw->cfhw", np.sin(angles).reshape(frames, 3, -1), cosines, optimize=True
    )
    video = torch.from_numpy((0.5 + 0.05 * moved).clip(0, 1))
    return (video * 255).round().float() / 255


@cache
def _texture(seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """90 waves (right, down), and the sine and cosine of each, thirty for each colour."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(0, 0.25, (90, 2)), rng.uniform(0, 7, 90)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    angles = np.tensordot(waves, np.stack([x, y]), 1) + phases[:, None, None]
    shape = (3, 30, HEIGHT, WIDTH)
    return waves, np.sin(angles).reshape(shape), np.cos(angles).reshape(shape)


def measured(spec: Any, video: Tensor, fps: float = 8.0) -> dict[str, float]:
    return dict(spec.load(CPU)(Sample(video, "a prompt", 0, fps)))
