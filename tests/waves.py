"""Videos of waves that move in a known way, and what metrics say of them."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jtcore.types import Sample

CPU = torch.device("cpu")
HEIGHT, WIDTH = 96, 128
RIGHT = (3.0, 1.0)  # px a frame


@cache
def moving(step: tuple[float, float], frames: int = 6, texture: int = 0) -> Tensor:
    """(3, F, HEIGHT, WIDTH): waves in all directions, which a step moves right and down exactly."""
    rng = np.random.default_rng(texture)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    waves = [(*rng.normal(0, 0.25, 2), rng.uniform(0, 7), rng.integers(3)) for _ in range(90)]
    video = np.full((3, frames, HEIGHT, WIDTH), 0.5)
    for across, down, phase, colour in waves:
        for index in range(frames):
            moved = across * (x - index * step[0]) + down * (y - index * step[1])
            video[colour, index] += 0.05 * np.sin(moved + phase)
    return (torch.from_numpy(video.clip(0, 1)) * 255).round().float() / 255


def measured(spec: Any, video: Tensor, fps: float = 8.0) -> dict[str, float]:
    return dict(spec.load(CPU)(Sample(video, "a prompt", 0, fps)))
