"""CogVideoX's causal video VAE behind jtcore's codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Generator, Tensor

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import AutoencoderKLCogVideoX


@frozen(eq=False)
class CogVideoXCodec:
    """Latents are samples of the posterior, times the VAE's scaling factor

    Sizes beyond half of the one that the VAE was made for are tiled, batches are sliced, both as
    diffusers does it. `invert_scale_latents` of CogVideoX 1.5 is about the picture that its
    image-to-video model begins with, and nothing else (diffusers' pipelines for either).
    """

    vae: AutoencoderKLCogVideoX

    def __attrs_post_init__(self) -> None:
        self.vae.enable_tiling()
        self.vae.enable_slicing()

    @torch.no_grad()
    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        """(B, 3, frames, height, width) in [-1, 1] -> (B, C, F, H, W), float32."""
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        return (posterior.sample(rng) * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, 3, frames, height, width) in [-1, 1], float32.

        The frame that was put before the first, to make their number even, is left out.
        """
        own = latents[:, :, 1 - latents.shape[2] % 2 :]
        scaled = 1 / self.vae.config.scaling_factor * own  # in the pipeline's order of rounding
        return self.vae.decode(scaled.to(self.vae.dtype)).sample.float().clamp(-1, 1)
