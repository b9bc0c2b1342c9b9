"""What CogVideoX (https://arxiv.org/abs/2408.06072) and pocket share, over diffusers' classes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Generator, Tensor, nn

from jtcore.diffusion import Levels
from jtcore.targets import match_targets
from jtcore.types import Noised

from ._discrete import add_noise, levels
from ._samplers import Kind, StockSampler, sampler

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

_QKV = tuple(f"transformer_blocks.*.attn1.to_{one}" for one in "qkv")
_ATTENTION = (*_QKV, "transformer_blocks.*.attn1.to_out.0")
_FEED_FORWARD = ("transformer_blocks.*.ff.net.0.proj", "transformer_blocks.*.ff.net.2")
ROLES = {  # one attention sees text and all frames at once: no layer is temporal or spatial alone
    "visual": _ATTENTION + _FEED_FORWARD,
    "attention": _ATTENTION,
    "attention_qkv": _QKV,
    "feed_forward": _FEED_FORWARD,
    "joint": _ATTENTION,
    "video_self": _ATTENTION,
    "spatial_self": _ATTENTION,
    "spatial_ff": _FEED_FORWARD,
    "text_cross": _ATTENTION,
    "text_kv": _QKV[1:],  # the video's keys and values as well
}
SCHEDULERS = {  # spaced trailing, as a schedule that ends without signal must be
    "ddim": Kind("CogVideoXDDIMScheduler", {"timestep_spacing": "trailing"}),
    "dpm": Kind("CogVideoXDPMScheduler", {"timestep_spacing": "trailing"}),
}
Grid = tuple[int, int]  # rows and columns of tokens


@frozen(eq=False)
class CogVideoXBackbone:
    """A denoiser that predicts v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0

    Noise and schedule are float32, whatever the latents are and the denoiser computes in.
    """

    denoiser: CogVideoXTransformer3DModel
    scheduler: CogVideoXDDIMScheduler
    prediction = "v"

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, ROLES, query)

    def blocks(self) -> dict[str, nn.Module]:
        blocks = enumerate(self.denoiser.transformer_blocks)
        return {f"transformer_blocks.{index}": block for index, block in blocks}

    def noise(self, latents: Tensor, rng: Generator) -> Noised:  # latents (B, C, F, H, W)
        return add_noise(self.scheduler.alphas_cumprod, self.prediction, latents, rng)

    def levels(self, times: Tensor) -> Levels:  # (B,)
        return levels(self.scheduler.alphas_cumprod, times)

    def predict(
        self, latents: Tensor, times: Tensor, text: Tensor
    ) -> Tensor:  # (B, C, F, H, W), (B,), (B, L, D) -> (B, C, F, H, W)
        dtype = self.denoiser.dtype
        velocity = self.denoiser(
            latents.transpose(1, 2).to(dtype),  # diffusers has (B, F, C, H, W)
            text.to(dtype),
            times.to(latents.device),
            image_rotary_emb=self._rotary(latents),
            return_dict=False,
        )[0]
        return velocity.transpose(1, 2).to(latents.dtype)

    def sampler(self, steps: int, scheduler: str | None = None) -> StockSampler:
        return sampler(self.scheduler, SCHEDULERS, scheduler, steps, frames_first=True)

    def checkpoint_gradients(self) -> None:
        self.denoiser.enable_gradient_checkpointing()

    def _rotary(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        config = self.denoiser.config
        if not config.use_rotary_positional_embeddings:
            return None
        frames, rows, columns = latents.shape[2:]
        patch = config.patch_size
        return rotary_embedding(
            config.attention_head_dim,
            frames,
            (rows // patch, columns // patch),
            (config.sample_height // patch, config.sample_width // patch),
            latents.device,
        )


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
    with torch.inference_mode(False):  # or what sampling had cached could not be trained with
        return get_3d_rotary_pos_embed(width, (start, stop), grid, frames, device=device)


def load_denoiser(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> CogVideoXTransformer3DModel:
    """The frozen denoiser of a `folder` as diffusers saves it; on "meta" without its weights."""
    from diffusers import CogVideoXTransformer3DModel

    if device.type != "meta":
        model = CogVideoXTransformer3DModel.from_pretrained(folder, torch_dtype=dtype)
        return freeze(model, device, dtype)
    config = CogVideoXTransformer3DModel.load_config(folder)
    with device:
        return freeze(CogVideoXTransformer3DModel.from_config(config), device, dtype)


def freeze(
    model: CogVideoXTransformer3DModel, device: torch.device, dtype: torch.dtype
) -> CogVideoXTransformer3DModel:
    # diffusers' own `to` would warn of modules to be kept in float32, of which this model has none
    nn.Module.to(model, device, dtype)
    return model.requires_grad_(False).eval()
