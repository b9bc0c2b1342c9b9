"""Small denoisers of several blocks, and what they are asked."""

from collections.abc import Sequence

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
from jtplugins.backbones._wan import WanBackbone
from jtplugins.backbones.pocket import Pocket

from .unet import WIDTH, build_unet

CPU = torch.device("cpu")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
TEXT = {"cogvideox": (6, 12), "wan": (6, 8), "zeroscope": (6, WIDTH), "pocket": (20, 64)}  # L, D
GRID = {"pocket": (4, 4)}  # latent rows and columns, of a denoiser that knows one size
CHANNELS = {"pocket": 48}


def denoiser(kind: str, dtype: torch.dtype = torch.float32, layers: int = 5) -> Backbone:
    """The same one whenever it is asked for; a UNet has eight blocks, whatever `layers` says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BUILD[kind](dtype, layers)


def _cogvideox(dtype: torch.dtype, layers: int) -> CogVideoXBackbone:
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=layers,
        sample_width=6,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=6,
        use_rotary_positional_embeddings=True,
    )
    return CogVideoXBackbone(freeze(network, CPU, dtype), CogVideoXDDIMScheduler())


def _wan(dtype: torch.dtype, layers: int) -> WanBackbone:
    network = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=32,
    )
    schedule = UniPCMultistepScheduler(**FLOW, flow_shift=3.0)
    return WanBackbone(freeze(network, CPU, dtype), schedule, 3.0)


def _unet(dtype: torch.dtype, layers: int) -> UNetBackbone:
    return UNetBackbone(freeze(build_unet(), CPU, dtype), DDIMScheduler())


def _pocket(dtype: torch.dtype, layers: int) -> CogVideoXBackbone:
    return Pocket("random").load(CPU, dtype)


BUILD = {"cogvideox": _cogvideox, "wan": _wan, "zeroscope": _unet, "pocket": _pocket}


def questions(kind: str, rng: Generator) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
    """Latents (2, C, F, H, W), times (2,) and text (2, L, D): of pictures, then of videos."""
    shapes = [(2, CHANNELS.get(kind, 4), frames, *GRID.get(kind, (4, 6))) for frames in (1, 3)]
    return [
        (
            torch.randn(shape, generator=rng),
            torch.tensor([300.0, 700.0]) if kind == "wan" else torch.tensor([300, 700]),
            torch.randn(2, *TEXT[kind], generator=rng),
        )
        for shape in shapes
    ]
