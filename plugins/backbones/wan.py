"""Wan 2.1 text-to-video (https://arxiv.org/abs/2503.20314) as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, optional

from jtcore import hookimpl

from . import _umt5
from ._pretrained import Layout, Parts, reads_more
from ._random import RandomText, drawn_as, of_files_alone, of_random_alone
from ._t5 import TOKENIZERS, load_t5_tokenizer, too_long
from ._text_networks import text_network
from ._vocabulary import Words, words_of
from ._wan import WanBackbone, keep_times_precise
from ._wan_vae import WanCodec
from ._words import kept, no_tokens, positions

if TYPE_CHECKING:
    from transformers import T5Tokenizer

    from jtcore.types import TextEncoder, TextNetwork

    from ._checkpoint import Checkpoint

Config = Literal["1.3b", "14b"]
PUBLISHED: Mapping[str, Mapping[str, Any]] = {  # of both sizes, but for the classes' own defaults
    "transformer": {
        "patch_size": (1, 2, 2),
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
    },
    "vae": {"z_dim": 16},
    "scheduler": {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
}
SIZES = {  # of the transformer
    "1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}

REPOSITORIES = {f"Wan-AI/Wan2.1-T2V-{size}-Diffusers": size.lower() for size in ("1.3B", "14B")}


def _of_wan_2_2(checkpoint: Checkpoint) -> str | None:
    """Whether a pipeline is of the next generation, which has the same classes."""
    index = checkpoint.index()
    if index.get("boundary_ratio") is not None or any(index.get("transformer_2") or ()):
        return "has two denoisers, each for half of the noise levels, as Wan 2.2 A14B"
    if index.get("expand_timesteps") or checkpoint.config("vae").get("is_residual"):
        return "has the VAE of Wan 2.2 5B, and a time for each token"
    return None


LAYOUT = Layout(
    denoiser="transformer",
    classes={
        "transformer": ("WanTransformer3DModel",),
        "vae": ("AutoencoderKLWan",),
        "text_encoder": ("UMT5EncoderModel",),
        "tokenizer": TOKENIZERS,
        "scheduler": ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"),
    },
    code={"transformer": ("_wan",), "vae": ("_wan_vae",), "text_encoder": ("_umt5",)},
    example="Wan-AI/Wan2.1-T2V-14B-Diffusers",
    refusal=_of_wan_2_2,
)


@frozen
class Wan:
    """Wan 2.1 text-to-video, 1.3B or 14B: a flow over all frames at once

    `weights` is a hub id, a folder in diffusers' layout, or "random", which draws those of `config`
    ("1.3b" unless said, of `layers` blocks) from `seed` and generates noise. `variant` names the
    weight files to take, `revision` a branch, tag or commit of the hub id. `shift` moves the noise
    levels of training and of sampling towards noise; unless said it is the checkpoint's: 3.0 as
    published, for 480 rows, where 720 are better off with 5.0. `tiling` encodes and decodes frames
    beyond 256 px in tiles, in less memory; the codec attends over whole frames, so what it makes of
    tiles is not the same.
    """

    weights: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    variant: str | None = field(default=None, validator=of_files_alone)
    revision: str | None = field(default=None, validator=of_files_alone)
    shift: float | None = field(default=None, validator=optional(gt(0)))
    tiling: bool = False
    config: Config | None = field(
        default=None, validator=[optional(in_(get_args(Config))), of_random_alone]
    )
    layers: int | None = field(default=None, validator=[optional(ge(1)), of_random_alone])
    seed: int | None = field(default=None, validator=[optional(ge(0)), of_random_alone])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip in px. Raises ValueError, naming the nearest size that fits."""
        vae, transformer = self._parts.config("vae"), self._parts.config("transformer")
        every, side = vae["scale_factor_temporal"], vae["scale_factor_spatial"]
        most = transformer["rope_max_seq_len"]
        units = [side * patch for patch in transformer["patch_size"][1:]]
        size = [_nearest(px, unit, most) for px, unit in zip((height, width), units, strict=True)]
        if size != [height, width]:
            raise ValueError(
                f"Wan takes multiples of {units[0]} px, at most {most * units[0]}, found"
                f" {height}x{width}; the nearest is {size[0]}x{size[1]}"
            )
        fitting = _nearest(frames - 1 + every, every, most) + 1 - every
        if frames != fitting:
            raise ValueError(
                f"Wan takes {every}N+1 frames, at most {every * (most - 1) + 1}, found {frames};"
                f" the nearest is {fitting}"
            )
        return vae["z_dim"], 1 + (frames - 1) // every, height // side, width // side

    def precision_problem(self, precision: str) -> str | None:
        if precision != "fp16":
            return None
        return (
            "Wan was trained in bf16, and black videos have been reported of it in fp16;"
            ' use "bf16", or "fp32"'
        )

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Prompts that are too long."""
        if self._parts.random:
            return []
        tokenizer = load_t5_tokenizer(self._parts.checkpoint)
        return too_long(tokenizer, list(map(_umt5.cleaned, prompts)), _umt5.LENGTH)

    def weights_problems(self) -> list[str]:
        return self._parts.problems()

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Tokens of `embed` that spell a phrase. Raises JtError where the prompt has it not."""
        if self._parts.random:
            raise no_tokens(phrase)
        return positions(self._tokenizer(), _umt5.cleaned(prompt), _umt5.cleaned(phrase))

    def denoiser_identity(self) -> str:
        return self._parts.identity("transformer", "scheduler")

    def text_identity(self) -> str:
        return f"{self._parts.identity('text_encoder', 'tokenizer')} {_umt5.cleaning()}"

    def codec_identity(self) -> str:
        return f"{self._parts.identity('vae')} {self.tiling}"

    def load_text_encoder(self, device: torch.device) -> TextEncoder:
        if self._parts.random:
            width = self._parts.config("transformer")["text_dim"]
            return RandomText(_umt5.LENGTH, width, self.seed or 0, device)
        return _umt5.load_umt5(self._parts.checkpoint, device)

    def load_codec(self, device: torch.device) -> WanCodec:
        vae = self._parts.network("vae", device, torch.float32)
        vae.enable_slicing()  # one sample after another is exact
        if self.tiling:
            vae.enable_tiling()
        return WanCodec(vae)

    def offline(self) -> Wan:
        size = REPOSITORIES.get(self.weights)
        return drawn_as(self, {"config": size}) if size else self

    def text_network(self, device_type: str) -> TextNetwork:
        width = self._parts.config("transformer")["text_dim"]
        dtype = _umt5.dtype_on(device_type)
        return text_network("UMT5EncoderModel", self._parts, _umt5.LENGTH, width, dtype)

    def load(self, device: torch.device, dtype: torch.dtype) -> WanBackbone:
        scheduler = self._parts.scheduler()
        denoiser = self._parts.network("transformer", device, dtype)
        shift = self.shift or _shift(scheduler.config)
        return WanBackbone(keep_times_precise(denoiser), scheduler, shift, self._vocabulary)

    @classmethod
    def adopt(cls, pipeline: object) -> WanBackbone | None:
        """None where a pipeline has no Wan, is told more than text, or has two denoisers."""
        from diffusers import WanTransformer3DModel

        denoiser = getattr(pipeline, "transformer", None)
        if not isinstance(denoiser, WanTransformer3DModel) or reads_more(denoiser.config):
            return None
        if getattr(pipeline, "transformer_2", None) is not None:
            return None
        return WanBackbone(denoiser, pipeline.scheduler, _shift(pipeline.scheduler.config))

    @property
    def _parts(self) -> Parts:
        layers = {"num_layers": self.layers} if self.layers else {}
        transformer = PUBLISHED["transformer"] | SIZES[self.config or "1.3b"] | layers
        drawn = {**PUBLISHED, "transformer": transformer}
        return Parts(LAYOUT, self.weights, self.variant, self.revision, self.seed or 0, drawn)

    @property
    def _vocabulary(self) -> Words | None:
        return words_of(
            self._parts, self._tokenizer, "d_model", self.load_text_encoder, _umt5.cleaned
        )

    def _tokenizer(self) -> T5Tokenizer:
        return kept(load_t5_tokenizer, self._parts.checkpoint)


def _shift(scheduler: Mapping[str, Any]) -> float:
    """What UniPC calls "flow_shift" and Euler "shift"."""
    return scheduler.get("flow_shift", scheduler.get("shift", 1.0))


def _nearest(number: int, unit: int, most: int) -> int:
    """The multiple of `unit`, from 1 to `most` of them."""
    return unit * min(max(1, (number + unit // 2) // unit), most)


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"wan": Wan}
