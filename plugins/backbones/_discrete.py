"""What backbones with a discrete noise schedule share."""

from __future__ import annotations

from torch import Generator, Tensor

from jtcore.diffusion import Levels, Prediction, noised
from jtcore.noise import Draws
from jtcore.types import Noised


def levels(alpha_bars: Tensor, times: Tensor) -> Levels:
    """Of `times` (B,), indices into the schedule's cumulated alphas (T,)."""
    alpha_bar = alpha_bars.double().cpu()[times.long().cpu()]
    return Levels(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def add_noise(
    alpha_bars: Tensor, prediction: Prediction, latents: Tensor, rng: Generator, draws: Draws
) -> Noised:  # latents (B, C, F, H, W)
    """In float32; at times uniform over the schedule, but for what `draws` says."""
    times = draws.steps(len(latents), len(alpha_bars), rng)
    noise = draws.noise(latents.shape, rng).to(latents.device)
    at = levels(alpha_bars, times)
    return noised(prediction, latents, noise, times.to(latents.device), at)
