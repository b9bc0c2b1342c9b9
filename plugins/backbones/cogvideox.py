"""CogVideoX text-to-video (https://arxiv.org/abs/2408.06072), 2B, 5B and 1.5, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, optional

from jtcore import JtError, hookimpl

from . import _cogvideox, _random, _t5, _vae
from ._checkpoint import Checkpoint, load_network
from ._cogvideox import CogVideoXBackbone
from ._cogvideox_configs import PUBLISHED
from ._networks import with_defaults
from ._random import RandomText, of_files_alone, of_random_alone, random_network
from ._t5 import load_t5, load_t5_tokenizer, too_long
from ._vae import CogVideoXCodec
from ._vocabulary import Words
from ._weight_files import digest
from ._words import kept, no_tokens, positions

if TYPE_CHECKING:
    from torch import nn

    from jtcore.types import TextEncoder

Size = tuple[int, int, int]  # frames, height and width
Config = Literal["2b", "5b", "1.5-5b"]
CLASSES = {  # that a part may be of
    "transformer": ("CogVideoXTransformer3DModel",),
    "vae": ("AutoencoderKLCogVideoX",),
    "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
}


@frozen
class CogVideoX:
    """CogVideoX text-to-video, 2B, 5B or 1.5: text and all frames in one attention

    `weights` is a hub id, a folder in diffusers' layout, or "random", which draws those of `config`
    ("5b" unless said, of `layers` blocks) from `seed` and generates noise. `variant` names the
    weight files to take, `revision` a branch, tag or commit of the hub id.
    """

    weights: str = "THUDM/CogVideoX-5b"
    variant: str | None = field(default=None, validator=of_files_alone)
    revision: str | None = field(default=None, validator=of_files_alone)
    config: Config | None = field(
        default=None, validator=[optional(in_(get_args(Config))), of_random_alone]
    )
    layers: int | None = field(default=None, validator=[optional(ge(1)), of_random_alone])
    seed: int | None = field(default=None, validator=[optional(ge(0)), of_random_alone])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip in px. Raises ValueError, naming the nearest size that fits."""
        vae, transformer = self._config("vae"), self._config("transformer")
        side, every = 2 ** (len(vae["block_out_channels"]) - 1), vae["temporal_compression_ratio"]
        fits = _learned_size if transformer["use_learned_positional_embeddings"] else _nearest_size
        told, fitting = fits((frames, height, width), side, 2 * every, transformer)
        if fitting[1:] != (height, width):
            nearest = f"{fitting[1]}x{fitting[2]}"
            raise ValueError(
                f"CogVideoX takes {told[1]}, found {height}x{width}; the nearest is {nearest}"
            )
        if fitting[0] != frames:
            raise ValueError(
                f"CogVideoX takes {told[0]}, found {frames}; the nearest is {fitting[0]}"
            )
        return vae["latent_channels"], 1 + (frames - 1) // every, height // side, width // side

    def precision_problem(self, precision: str) -> str | None:
        """2B was trained in fp16, the others in bf16; in the other of the two each was reported to
        make numbers that are not finite."""
        own, other = ("bf16", "fp16") if self._rotary else ("fp16", "bf16")
        if precision != other:
            return None
        which = (
            "with rotary positions (5B, 1.5)" if self._rotary else "without rotary positions (2B)"
        )
        return (
            f"CogVideoX {which} was trained in {own}, and in {other} it is known to make numbers"
            f' that are not finite; use "{own}", or "fp32"'
        )

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Prompts that are too long."""
        if self.weights == "random":
            return []
        return too_long(load_t5_tokenizer(self._checkpoint), prompts, self._length)

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Tokens of `embed` that spell a phrase. Raises JtError where the prompt has it not."""
        if self.weights == "random":
            raise no_tokens(phrase)
        return positions(kept(load_t5_tokenizer, self._checkpoint), prompt, phrase)

    def denoiser_identity(self) -> str:
        return self._identity("transformer", "scheduler")

    def text_identity(self) -> str:
        return f"{self._identity('text_encoder', 'tokenizer')} {self._length}"

    def codec_identity(self) -> str:
        return self._identity("vae")

    def load_text_encoder(self, device: torch.device) -> TextEncoder:
        if self.weights == "random":
            width = self._config("transformer")["text_embed_dim"]
            return RandomText(self._length, width, self.seed or 0, device)
        return load_t5(self._checkpoint, self._length, device)

    def load_codec(self, device: torch.device) -> CogVideoXCodec:
        return CogVideoXCodec(self._network("vae", device, "auto"))

    def load(self, device: torch.device, dtype: torch.dtype) -> CogVideoXBackbone:
        import diffusers

        config = self._config("scheduler")
        scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
        denoiser = self._network("transformer", device, dtype)
        return CogVideoXBackbone(denoiser, scheduler, self._vocabulary)

    @classmethod
    def adopt(cls, pipeline: object) -> CogVideoXBackbone | None:
        """None where a pipeline has no CogVideoX, or one that is told more than text."""
        from diffusers import CogVideoXTransformer3DModel

        denoiser = getattr(pipeline, "transformer", None)
        if not isinstance(denoiser, CogVideoXTransformer3DModel) or _reads_more(denoiser.config):
            return None
        return CogVideoXBackbone(denoiser, pipeline.scheduler)

    @property
    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.weights, self.variant, self.revision)

    @property
    def _vocabulary(self) -> Words | None:
        if self.weights == "random":
            return None
        return Words(
            partial(kept, load_t5_tokenizer, self._checkpoint),
            lambda: self._checkpoint.config("text_encoder")["d_model"],
            self.load_text_encoder,
        )

    @property
    def _length(self) -> int:
        """Tokens of text, to which prompts are padded."""
        return self._config("transformer")["max_text_seq_length"]

    @property
    def _rotary(self) -> bool:
        return self._config("transformer")["use_rotary_positional_embeddings"]

    def _config(self, part: str) -> Mapping[str, Any]:
        if self.weights == "random":
            layers = {"num_layers": self.layers} if self.layers and part == "transformer" else {}
            return PUBLISHED[self.config or "5b"][part] | layers
        name = self._checkpoint.expect(part, *CLASSES[part])
        config = with_defaults(name, self._checkpoint.config(part))
        if part == "transformer" and _reads_more(config):
            raise JtError(
                f"backbone.weights: {self.weights!r} is told more than text, such as a picture to"
                " begin with; this backbone is for text-to-video, such as THUDM/CogVideoX-5b"
            )
        return config

    def _network(
        self, part: str, device: torch.device, dtype: torch.dtype | Literal["auto"]
    ) -> nn.Module:
        (name,), config = CLASSES[part], self._config(part)
        if self.weights != "random":
            return load_network(name, self._checkpoint, part, device, dtype)
        own = torch.bfloat16 if self._rotary else torch.float16  # as published
        dtype = own if dtype == "auto" else dtype
        return random_network(name, config, self.seed or 0, device, dtype)

    def _identity(self, *parts: str) -> str:
        """Of the weights of `parts`, and of the code that reads them."""
        code = [Path(module.__file__) for module in (_cogvideox, _random, _t5, _vae)]
        read = digest({path.name: path for path in (Path(__file__), *code)})
        if self.weights == "random":
            drawn = {part: self._config(part) for part in parts if part in CLASSES}
            return f"random {self.seed or 0} {drawn} {read}"
        return f"{self._checkpoint.identity(*parts)} {read}"


def _reads_more(transformer: Mapping[str, Any]) -> bool:
    """Image-to-video models and their like have further channels."""
    return transformer["in_channels"] != transformer["out_channels"]


def _nearest_size(
    size: Size, side: int, group: int, transformer: Mapping[str, Any]
) -> tuple[tuple[str, str], Size]:
    """What frames and sides fit, and the nearest that do. The VAE encodes a `side` to one latent,
    and decodes in groups of frames, after the first."""
    unit = side * transformer["patch_size"]
    frames = 1 + group * ((size[0] - 1 + group // 2) // group)
    rows, columns = (unit * max(1, (px + unit // 2) // unit) for px in size[1:])
    return (f"{group}N+1 frames", f"multiples of {unit} px"), (frames, rows, columns)


def _learned_size(
    size: Size, side: int, group: int, transformer: Mapping[str, Any]
) -> tuple[tuple[str, str], Size]:
    """The same where positions are learned, which diffusers cannot do at any other size."""
    frames, *sides = (transformer[f"sample_{name}"] for name in ("frames", "height", "width"))
    rows, columns = (side * each for each in sides)
    of_one = "of its learned positions"
    return (f"the frames {of_one}", f"the one size {of_one}"), (frames, rows, columns)


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"cogvideox": CogVideoX}
