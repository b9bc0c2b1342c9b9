"""Stable Diffusion's VAE (https://arxiv.org/abs/2112.10752) behind jtcore's codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Generator, Tensor

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import AutoencoderKL


@frozen(eq=False)
class FrameCodec:
    """A VAE for images, frame by frame, in float32"""

    vae: AutoencoderKL

    @torch.no_grad()
    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        """(B, 3, frames, height, width) in [-1, 1] -> (B, C, F, H, W), samples of the posterior
        times the VAE's scaling factor."""
        frames = pixels.transpose(1, 2).flatten(0, 1).to(self.vae.dtype)
        latents = self.vae.encode(frames).latent_dist.sample(rng) * self.vae.config.scaling_factor
        return latents.unflatten(0, (len(pixels), -1)).transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, 3, frames, height, width) in [-1, 1]."""
        frames = (1 / self.vae.config.scaling_factor * latents).transpose(1, 2).flatten(0, 1)
        pixels = self.vae.decode(frames.to(self.vae.dtype)).sample
        return pixels.unflatten(0, (len(latents), -1)).transpose(1, 2).clamp(-1, 1)
