"""ZeroScope and ModelScope text-to-video (https://arxiv.org/abs/2308.06571) as backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from attrs import Attribute, field, frozen
from attrs.validators import ge, in_, optional

from jtcore import hookimpl

from ._clip_text import TOKENIZERS, load_clip, load_clip_tokenizer, too_long
from ._frame_vae import FrameCodec
from ._pretrained import Layout, Parts, reads_more
from ._random import RandomText, drawn_as, of_files_alone, of_random_alone
from ._text_networks import text_network
from ._unet import UNetBackbone, bypass_temporal, noise_schedule
from ._vocabulary import Words, words_of
from ._words import kept, no_tokens, positions

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from jtcore.types import TextEncoder, TextNetwork

ImageMode = Literal["native", "bypass_temporal"]
LAYOUT = Layout(
    denoiser="unet",
    classes={  # of schedulers any that has a schedule of noise
        "unet": ("UNet3DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": TOKENIZERS,
    },
    code={"unet": ("_unet",), "vae": ("_frame_vae",), "text_encoder": ("_clip_text",)},
    example="cerspense/zeroscope_v2_576w",
)
REPOSITORIES = ("cerspense/zeroscope_v2_576w", "damo-vilab/text-to-video-ms-1.7b")  # of one size
GROUPS = 32  # of channels in a norm
PUBLISHED: Mapping[str, Mapping[str, Any]] = {  # but for what is a class's own default
    "unet": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": 64,
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {"max_position_embeddings": 77, "hidden_size": 1024},
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    },
}


def _whole_groups(spec: Any, attribute: Attribute, value: int | None) -> None:
    if value is not None and (value <= 0 or value % GROUPS):
        raise ValueError(f"must be a multiple of {GROUPS}, found {value}")


@frozen
class ZeroScope:
    """ZeroScope v2: ModelScope's UNet, trained further on 24 frames of 320x576 px

    `weights` is a hub id, a folder in diffusers' layout, or "random", which draws those of the
    published size, or of `width` channels in the first level instead of 320, from `seed`, and
    generates noise. `variant` names the weight files to take, `revision` a branch, tag or commit of
    the hub id. At one frame `image_mode = "native"` runs the temporal layers, which then train on
    images too, as in JointTuner and MotionBooth; "bypass_temporal" leaves them out, as
    MotionDirector does. `tiling` encodes and decodes frames larger than the VAE was made for in
    tiles, in less memory; the VAE attends over whole frames, so what it makes of tiles is not the
    same.
    """

    weights: str = "cerspense/zeroscope_v2_576w"
    variant: str | None = field(default=None, validator=of_files_alone)
    revision: str | None = field(default=None, validator=of_files_alone)
    image_mode: ImageMode = field(default="native", validator=in_(get_args(ImageMode)))
    tiling: bool = False
    width: int | None = field(default=None, validator=[_whole_groups, of_random_alone])
    seed: int | None = field(default=None, validator=[optional(ge(0)), of_random_alone])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip in px. Raises ValueError, naming the nearest size that fits."""
        vae, unet = self._parts.config("vae"), self._parts.config("unet")
        side = 2 ** (len(vae["block_out_channels"]) - 1)
        unit = side * 2 ** (len(unet["block_out_channels"]) - 1)  # of which the deepest level is 1
        fits = [unit * max(1, round(px / unit)) for px in (height, width)]
        if fits != [height, width]:
            raise ValueError(
                f"this UNet takes multiples of {unit} px, found {height}x{width}; the nearest is"
                f" {fits[0]}x{fits[1]}"
            )
        return vae["latent_channels"], frames, height // side, width // side

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Prompts that are too long."""
        if self._parts.random:
            return []
        return too_long(load_clip_tokenizer(self._parts.checkpoint), prompts)

    def weights_problems(self) -> list[str]:
        return self._parts.problems()

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Tokens of `embed` that spell a phrase. Raises JtError where the prompt has it not."""
        if self._parts.random:
            raise no_tokens(phrase)
        return positions(self._tokenizer(), prompt, phrase)

    def denoiser_identity(self) -> str:
        return f"{self._parts.identity('unet', 'scheduler')} {self.image_mode}"

    def text_identity(self) -> str:
        return self._parts.identity("text_encoder", "tokenizer")

    def codec_identity(self) -> str:
        return f"{self._parts.identity('vae')} {self.tiling}"

    def load_text_encoder(self, device: torch.device) -> TextEncoder:
        if self._parts.random:
            config = self._parts.config("text_encoder")
            length, width = config["max_position_embeddings"], config["hidden_size"]
            return RandomText(length, width, self.seed or 0, device)
        return load_clip(self._parts.checkpoint, device)

    def load_codec(self, device: torch.device) -> FrameCodec:
        vae = self._parts.network("vae", device, torch.float32)
        vae.enable_slicing()  # memory holds what one frame needs
        if self.tiling:
            vae.enable_tiling()
        return FrameCodec(vae)

    def offline(self) -> ZeroScope:
        return drawn_as(self, {}) if self.weights in REPOSITORIES else self

    def text_network(self, device_type: str) -> TextNetwork:
        config = self._parts.config("text_encoder")
        tokens, width = config["max_position_embeddings"], config["hidden_size"]
        return text_network("CLIPTextModel", self._parts, tokens, width, torch.float32)

    def load(self, device: torch.device, dtype: torch.dtype) -> UNetBackbone:
        scheduler = noise_schedule(self._parts.config("scheduler"))
        denoiser = self._parts.network("unet", device, dtype)
        if self.image_mode == "bypass_temporal":
            bypass_temporal(denoiser)
        return UNetBackbone(denoiser, scheduler, self._vocabulary)

    @classmethod
    def adopt(cls, pipeline: object) -> UNetBackbone | None:
        """None where the pipeline has another denoiser."""
        from diffusers import UNet3DConditionModel

        denoiser = getattr(pipeline, "unet", None)
        if not isinstance(denoiser, UNet3DConditionModel) or reads_more(denoiser.config):
            return None
        return UNetBackbone(denoiser, noise_schedule(pipeline.scheduler.config))

    @property
    def _parts(self) -> Parts:
        drawn = PUBLISHED
        if self.width:
            levels = tuple(self.width * times for times in (1, 2, 4, 4))
            narrow = {"block_out_channels": levels, "attention_head_dim": gcd(self.width, 64)}
            drawn = {**drawn, "unet": drawn["unet"] | narrow}
        return Parts(LAYOUT, self.weights, self.variant, self.revision, self.seed or 0, drawn)

    @property
    def _vocabulary(self) -> Words | None:
        return words_of(self._parts, self._tokenizer, "hidden_size", self.load_text_encoder)

    def _tokenizer(self) -> CLIPTokenizer:
        return kept(load_clip_tokenizer, self._parts.checkpoint)


def _weights_first(cls: type, fields: list[Attribute]) -> list[Attribute]:
    """What a class says anew would come last."""
    return sorted(fields, key=lambda option: option.name != "weights")


@frozen(field_transformer=_weights_first)
class ModelScope(ZeroScope):
    """ModelScope text-to-video, 1.7B: a UNet for 16 frames of 256x256 px

    The options are ZeroScope's.
    """

    weights: str = "damo-vilab/text-to-video-ms-1.7b"


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"zeroscope": ZeroScope, "modelscope": ModelScope}
