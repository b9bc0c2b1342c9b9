"""ZeroScope and ModelScope text-to-video (https://arxiv.org/abs/2308.06571) as backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from attrs import Attribute, field, frozen
from attrs.validators import ge, in_, optional
from torch import Generator, Tensor, nn

from jtcore import hookimpl

from . import _clip_text, _unet
from ._checkpoint import Checkpoint, load_network
from ._clip_text import load_clip, load_clip_tokenizer, too_long
from ._random import RandomText, of_files_alone, of_random_alone, random_network
from ._unet import UNetBackbone, bypass_temporal, noise_schedule
from ._weight_files import digest

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import AutoencoderKL

    from jtcore.types import TextEncoder

ImageMode = Literal["native", "bypass_temporal"]
CLASSES = {"unet": "UNet3DConditionModel", "vae": "AutoencoderKL"}
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
    MotionDirector does.
    """

    weights: str = "cerspense/zeroscope_v2_576w"
    variant: str | None = field(default=None, validator=of_files_alone)
    revision: str | None = field(default=None, validator=of_files_alone)
    image_mode: ImageMode = field(default="native", validator=in_(get_args(ImageMode)))
    width: int | None = field(default=None, validator=[_whole_groups, of_random_alone])
    seed: int | None = field(default=None, validator=[optional(ge(0)), of_random_alone])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip in px. Raises ValueError, naming the nearest size that fits."""
        vae, unet = self._config("vae"), self._config("unet")
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
        if self._random:
            return []
        return too_long(load_clip_tokenizer(self._checkpoint), prompts)

    def denoiser_identity(self) -> str:
        return f"{self._identity('unet', 'scheduler')} {self.image_mode}"

    def text_identity(self) -> str:
        return self._identity("text_encoder", "tokenizer")

    def codec_identity(self) -> str:
        return self._identity("vae")

    def load_text_encoder(self, device: torch.device) -> TextEncoder:
        if self._random:
            config = self._config("text_encoder")
            length, width = config["max_position_embeddings"], config["hidden_size"]
            return RandomText(length, width, self.seed or 0, device)
        return load_clip(self._checkpoint, device)

    def load_codec(self, device: torch.device) -> FrameCodec:
        vae = self._network("vae", device, torch.float32)
        vae.enable_slicing()  # memory holds what one frame needs
        return FrameCodec(vae)

    def load(self, device: torch.device, dtype: torch.dtype) -> UNetBackbone:
        scheduler = noise_schedule(self._config("scheduler"))
        denoiser = self._network("unet", device, dtype)
        if self.image_mode == "bypass_temporal":
            bypass_temporal(denoiser)
        return UNetBackbone(denoiser, scheduler)

    @classmethod
    def adopt(cls, pipeline: object) -> UNetBackbone | None:
        """None where the pipeline has another denoiser."""
        from diffusers import UNet3DConditionModel

        denoiser = getattr(pipeline, "unet", None)
        if not isinstance(denoiser, UNet3DConditionModel):
            return None
        return UNetBackbone(denoiser, noise_schedule(pipeline.scheduler.config))

    @property
    def _random(self) -> bool:
        return self.weights == "random"

    @property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.weights, self.variant, self.revision)

    def _config(self, part: str) -> Mapping[str, Any]:
        """Of a part: the published, scaled to `width`, or that of the checkpoint."""
        if not self._random:
            if part in CLASSES:
                self._checkpoint.expect(part, CLASSES[part])
            return self._checkpoint.config(part)
        if part == "unet" and self.width:
            levels = {"block_out_channels": tuple(self.width * times for times in (1, 2, 4, 4))}
            return PUBLISHED["unet"] | levels | {"attention_head_dim": gcd(self.width, 64)}
        return PUBLISHED[part]

    def _network(self, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
        if self._random:
            config = self._config(part)
            return random_network(CLASSES[part], config, self.seed or 0, device, dtype)
        return load_network(CLASSES[part], self._checkpoint, part, device, dtype)

    def _identity(self, *parts: str) -> str:
        """Of the weights of `parts`, and of the code that reads them."""
        code = [Path(module.__file__) for module in (_unet, _clip_text)]
        read = digest({path.name: path for path in [Path(__file__), *code]})
        if self._random:
            return f"random {self.seed or 0} {self.width} {read}"
        return f"{self._checkpoint.identity(*parts)} {read}"


def _weights_first(cls: type, fields: list[Attribute]) -> list[Attribute]:
    """What a class says anew would come last."""
    return sorted(fields, key=lambda option: option.name != "weights")


@frozen(field_transformer=_weights_first)
class ModelScope(ZeroScope):
    """ModelScope text-to-video, 1.7B: a UNet for 16 frames of 256x256 px

    The options are ZeroScope's.
    """

    weights: str = "damo-vilab/text-to-video-ms-1.7b"


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


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"zeroscope": ZeroScope, "modelscope": ModelScope}
