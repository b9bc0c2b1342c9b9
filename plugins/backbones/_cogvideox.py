"""What CogVideoX (https://arxiv.org/abs/2408.06072) and pocket share, over diffusers' classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Generator, Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from jtcore.attention import TextAttention
from jtcore.diffusion import Levels
from jtcore.noise import PLAIN, Draws
from jtcore.targets import Targets, match_targets
from jtcore.types import Entrance, Noised, Sampler, Site, Vocabulary

from . import _roles
from ._discrete import add_noise, levels
from ._samplers import Kind, StockSampler, sampler
from ._sites import match_sites

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

PAIRS = (("norm1", "attn1"), ("norm2", "ff"))  # in each block
SCHEDULERS = {  # spaced trailing, as a schedule that ends without signal must be
    "ddim": Kind("CogVideoXDDIMScheduler", {"timestep_spacing": "trailing"}),
    "dpm": Kind("CogVideoXDPMScheduler", {"timestep_spacing": "trailing"}),
}
Grid = tuple[int, int]  # rows and columns of tokens


@frozen(eq=False)
class CogVideoXBackbone:
    """A denoiser that predicts v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0

    Noise and schedule are float32, whatever the latents are and the denoiser computes in.
    CogVideoX 1.5 takes frames in pairs. Where one is lacking, as its VAE always makes it, the first
    is doubled before noise is added, as in its training; sampling begins with a frame more, which
    the codec leaves out.
    """

    denoiser: CogVideoXTransformer3DModel
    scheduler: CogVideoXDDIMScheduler
    vocabulary: Vocabulary | None = None
    prediction = "v"

    def targets(self, query: Targets) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, _roles.COGVIDEOX, query)

    def blocks(self) -> dict[str, nn.Module]:
        blocks = enumerate(self.denoiser.transformer_blocks)
        return {f"transformer_blocks.{index}": block for index, block in blocks}

    def sites(self, query: Targets) -> dict[str, Site]:
        """Joint attentions and feed-forwards; the video's stream, and then the text's."""
        return match_sites(self.blocks(), PAIRS, self.targets(query), query, streams=2)

    def text_attentions(self) -> dict[str, TextAttention]:
        """The joint attention of every block."""
        config = self.denoiser.config
        patch = (self._together, config.patch_size, config.patch_size)
        return {
            f"{name}.attn1": TextAttention(block.attn1, joint=True, patch=patch)
            for name, block in self.blocks().items()
        }

    def entrance(self) -> Entrance:
        """Text and video tokens come of one embedding. CogVideoX 1.5's `ofs` is left out of the
        time's, being the same in all passes."""
        network = self.denoiser
        width = network.config.num_attention_heads * network.config.attention_head_dim
        return Entrance(
            (network.patch_embed,), network.time_embedding, width, network.config.time_embed_dim
        )

    def noise(
        self, latents: Tensor, rng: Generator, draws: Draws = PLAIN
    ) -> Noised:  # latents (B, C, F, H, W)
        """Of the frames, and of those that are put before the first."""
        whole = filled_up(latents, self._together)
        return add_noise(self.scheduler.alphas_cumprod, self.prediction, whole, rng, draws)

    def levels(self, times: Tensor) -> Levels:  # (B,)
        return levels(self.scheduler.alphas_cumprod, times)

    def predict(
        self, latents: Tensor, times: Tensor, text: Tensor
    ) -> Tensor:  # (B, C, F, H, W), (B,), (B, L, D) -> (B, C, F, H, W)
        dtype, whole = self.denoiser.dtype, filled_up(latents, self._together)
        velocity = self.denoiser(
            whole.transpose(1, 2).to(dtype),  # diffusers has (B, F, C, H, W)
            text.to(dtype),
            times.to(latents.device),
            ofs=self._ofs(latents),
            image_rotary_emb=self._rotary(whole),
            return_dict=False,
        )[0]
        return velocity.transpose(1, 2)[:, :, -latents.shape[2] :].to(latents.dtype)

    def sampler(self, steps: int, scheduler: str | None = None) -> Sampler:
        walk = sampler(self.scheduler, SCHEDULERS, scheduler, steps, frames_first=True)
        return FilledUpSampler(walk, self._together) if self._together > 1 else walk

    @property
    def _together(self) -> int:
        """How many latent frames make one token."""
        together = self.denoiser.config.patch_size_t or 1
        assert together <= 2, "the codec leaves out one frame at most"
        return together

    def _ofs(self, latents: Tensor) -> Tensor | None:  # (1,)
        """What the pipelines of networks with such an embedding give it."""
        return None if self.denoiser.config.ofs_embed_dim is None else latents.new_full((1,), 2.0)

    def _rotary(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        config = self.denoiser.config
        if not config.use_rotary_positional_embeddings:
            return None
        frames, rows, columns = latents.shape[2:]
        patch = config.patch_size
        grid, width = (rows // patch, columns // patch), config.attention_head_dim
        if config.patch_size_t:
            return counted_rotary_embedding(width, frames // self._together, grid, latents.device)
        base = config.sample_height // patch, config.sample_width // patch
        return rotary_embedding(width, frames, grid, base, latents.device)


@frozen(eq=False)
class FilledUpSampler:
    """Begins with so many frames that their number is a multiple of `together`"""

    walk: StockSampler
    together: int

    @property
    def times(self) -> Sequence[Tensor]:
        return self.walk.times

    def start(self, shape: Sequence[int], rng: Generator) -> Tensor:  # (B, C, F, H, W)
        batch, channels, frames, *grid = shape
        return self.walk.start((batch, channels, frames + -frames % self.together, *grid), rng)

    def step(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor:
        return self.walk.step(prediction, index, latents, rng)


def filled_up(latents: Tensor, together: int) -> Tensor:  # (B, C, F, H, W)
    """The first frame is repeated until their number is a multiple of `together`."""
    lacking = -latents.shape[2] % together
    return torch.cat([*[latents[:, :, :1]] * lacking, latents], 2) if lacking else latents


@contextmanager
def _for_all() -> Iterator[None]:
    """What is computed and cached here can be trained with where it was sampled with first, and has
    numbers where tensors without any were asked for first."""
    with torch.inference_mode(False), _disable_current_modes():
        yield


@lru_cache(maxsize=32)
def rotary_embedding(
    width: int, frames: int, grid: Grid, base: Grid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (frames * rows * columns, width), for heads of `width`.

    A `grid` other than `base`, the one trained on, is laid over it, centred, its aspect kept.
    """
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    scale = min(whole / own for whole, own in zip(base, grid, strict=True))
    covered = [round(own * scale) for own in grid]
    start = [round((whole - own) / 2) for whole, own in zip(base, covered, strict=True)]
    stop = [begin + own for begin, own in zip(start, covered, strict=True)]
    with _for_all():
        return get_3d_rotary_pos_embed(width, (start, stop), grid, frames, device=device)


@lru_cache(maxsize=32)
def counted_rotary_embedding(
    width: int, frames: int, grid: Grid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The same of CogVideoX 1.5, whose positions are counted whatever the size."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    with _for_all():
        return get_3d_rotary_pos_embed(
            width, None, grid, frames, grid_type="slice", max_size=grid, device=device
        )
