"""Small denoisers with random weights as backbones, without files, and something to ask them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from torch import Generator, Tensor

from jtcore.types import Backbone
from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones._networks import freeze
from jtplugins.backbones._unet import UNetBackbone
from jtplugins.backbones._wan import WanBackbone, keep_times_precise
from jtplugins.backbones.pocket import Pocket

from .cogvideox import TRANSFORMER
from .unet import WIDTH, build_unet

CPU = torch.device("cpu")
KINDS = ("unet", "cogvideox", "wan")
EVERY = (*KINDS, "pocket")
LAYERS = 4  # of the transformers; the UNet has 9 blocks, and pocket 5
LATENTS = {"unet": (4, 4, 6), "cogvideox": (4, 4, 6), "wan": (16, 4, 6), "pocket": (48, 4, 4)}
TEXT = {  # L, D
    "unet": (5, WIDTH),
    "cogvideox": (TRANSFORMER["max_text_seq_length"], 32),
    "wan": (5, 32),
    "pocket": (20, 64),
}


class Asked(NamedTuple):
    """A batch for `predict`"""

    latents: Tensor  # (2, C, F, H, W)
    times: Tensor  # (2,)
    text: Tensor  # (2, L, D)

    def put(self, backbone: Backbone) -> Tensor:  # (2, C, F, H, W)
        return backbone.predict(*self)


def build(
    kind: str, dtype: torch.dtype = torch.float32, layers: int = LAYERS, seed: int = 0
) -> Backbone:
    """A frozen backbone of that kind, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILD[kind](dtype, layers)


def ask(
    kind: str, seed: int = 1, times: tuple[float, float] = (100, 900), frames: int | None = None
) -> Asked:
    """About two videos, of so many latent frames."""
    return _drawn(kind, torch.Generator().manual_seed(seed), frames, times)


def questions(kind: str, rng: Generator) -> Sequence[Asked]:
    """About pictures, and about videos."""
    return [_drawn(kind, rng, frames, (300, 700)) for frames in (1, None)]


def _drawn(kind: str, rng: Generator, frames: int | None, times: tuple[float, float]) -> Asked:
    channels, height, width = LATENTS[kind]
    frames = frames or (2 if kind == "wan" else 3)
    latents = torch.randn(2, channels, frames, height, width, generator=rng)
    return Asked(latents, torch.tensor(times), torch.randn(2, *TEXT[kind], generator=rng))


def _unet(dtype: torch.dtype, layers: int) -> UNetBackbone:
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return UNetBackbone(freeze(build_unet(), CPU, dtype), DDIMScheduler(**schedule))


def _cogvideox(dtype: torch.dtype, layers: int) -> CogVideoXBackbone:
    options = {"num_layers": layers, "use_rotary_positional_embeddings": True}
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
    )
    network = CogVideoXTransformer3DModel(**TRANSFORMER | options)
    return CogVideoXBackbone(freeze(network, CPU, dtype), scheduler)


def _wan(dtype: torch.dtype, layers: int) -> WanBackbone:
    network = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=64,
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return WanBackbone(keep_times_precise(freeze(network, CPU, dtype)), scheduler, 3.0)


def _pocket(dtype: torch.dtype, layers: int) -> Backbone:
    return Pocket("random").load(CPU, dtype)


BUILD = {"unet": _unet, "cogvideox": _cogvideox, "wan": _wan, "pocket": _pocket}
