"""What backbones with a discrete noise schedule share."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jtcore.diffusion import Levels, Prediction, noised
from jtcore.types import Noised


def levels(alpha_bars: Tensor, times: Tensor) -> Levels:
    """Of `times` (B,), indices into the schedule's cumulated alphas (T,)."""
    alpha_bar = alpha_bars.double().cpu()[times.long().cpu()]
    return Levels(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def add_noise(
    alpha_bars: Tensor, prediction: Prediction, latents: Tensor, rng: Generator
) -> Noised:  # latents (B, C, F, H, W)
    """At times uniform over the schedule; drawn on the CPU, alike on every device, in float32."""
    times = torch.randint(len(alpha_bars), (len(latents),), generator=rng)
    noise = torch.randn(latents.shape, generator=rng).to(latents.device)
    at = levels(alpha_bars, times)
    return noised(prediction, latents, noise, times.to(latents.device), at)
