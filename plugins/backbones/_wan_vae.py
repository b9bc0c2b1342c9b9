"""Wan's causal video VAE (https://arxiv.org/abs/2503.20314) behind jtcore's codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Generator, Tensor

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import AutoencoderKLWan


@frozen(eq=False)
class WanCodec:
    """A causal VAE, in float32: one frame a latent, then four"""

    vae: AutoencoderKLWan

    @torch.no_grad()
    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        """(B, 3, frames, height, width) in [-1, 1] -> (B, C, F, H, W), a sample of the posterior of
        mean 0 and standard deviation 1 in each channel."""
        mean, scale = self._statistics(pixels.device)
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.sample(generator=rng)
        return (latents - mean) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, 3, frames, height, width) in [-1, 1]."""
        mean, scale = self._statistics(latents.device)
        return self.vae.decode(latents.to(self.vae.dtype) / scale + mean, return_dict=False)[0]

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:  # each (1, C, 1, 1, 1)
        """The mean of what the VAE encodes to, and 1 / its standard deviation."""
        config, dtype = self.vae.config, self.vae.dtype
        mean, deviation = (
            torch.tensor(each).view(1, -1, 1, 1, 1).to(device, dtype)
            for each in (config.latents_mean, config.latents_std)
        )
        return mean, 1 / deviation
