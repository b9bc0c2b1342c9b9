"""CogVideoX text-to-video (https://arxiv.org/abs/2408.06072), 2B, 5B and 1.5, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, optional

from jtcore import hookimpl

from ._cogvideox import CogVideoXBackbone
from ._cogvideox_configs import PUBLISHED
from ._pretrained import Layout, Parts, reads_more
from ._random import RandomText, drawn_as, of_files_alone, of_random_alone
from ._t5 import TOKENIZERS, load_t5, load_t5_tokenizer, too_long
from ._text_networks import text_network
from ._vae import CogVideoXCodec
from ._vocabulary import Words, words_of
from ._words import kept, no_tokens, positions

if TYPE_CHECKING:
    from transformers import T5Tokenizer

    from jtcore.types import TextEncoder, TextNetwork

Size = tuple[int, int, int]  # frames, height and width
Config = Literal["2b", "5b", "1.5-5b"]
LAYOUT = Layout(
    denoiser="transformer",
    classes={
        "transformer": ("CogVideoXTransformer3DModel",),
        "vae": ("AutoencoderKLCogVideoX",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": TOKENIZERS,
        "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    },
    code={"transformer": ("_cogvideox",), "vae": ("_vae",), "text_encoder": ("_t5",)},
    example="THUDM/CogVideoX-5b",
)
SIZES: Mapping[str, Config] = {  # by the names of repositories on the hub
    "CogVideoX-2b": "2b",
    "CogVideoX-5b": "5b",
    "CogVideoX1.5-5B": "1.5-5b",
}
OWNERS = ("THUDM", "zai-org")  # of the same ones


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
        vae, transformer = self._parts.config("vae"), self._parts.config("transformer")
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
        if self._parts.random:
            return []
        return too_long(load_t5_tokenizer(self._parts.checkpoint), prompts, self._length)

    def weights_problems(self) -> list[str]:
        return self._parts.problems()

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Tokens of `embed` that spell a phrase. Raises JtError where the prompt has it not."""
        if self._parts.random:
            raise no_tokens(phrase)
        return positions(self._tokenizer(), prompt, phrase)

    def denoiser_identity(self) -> str:
        return self._parts.identity("transformer", "scheduler")

    def text_identity(self) -> str:
        return f"{self._parts.identity('text_encoder', 'tokenizer')} {self._length}"

    def codec_identity(self) -> str:
        return self._parts.identity("vae")

    def load_text_encoder(self, device: torch.device) -> TextEncoder:
        if self._parts.random:
            width = self._parts.config("transformer")["text_embed_dim"]
            return RandomText(self._length, width, self.seed or 0, device)
        return load_t5(self._parts.checkpoint, self._length, device)

    def load_codec(self, device: torch.device) -> CogVideoXCodec:
        stored = not self._parts.random and device.type != "meta"
        dtype = "auto" if stored else self._published_dtype
        return CogVideoXCodec(self._parts.network("vae", device, dtype))

    def offline(self) -> CogVideoX:
        owner, _, name = self.weights.partition("/")
        size = SIZES.get(name) if owner in OWNERS else None
        return drawn_as(self, {"config": size}) if size else self

    def text_network(self, device_type: str) -> TextNetwork:
        width = self._parts.config("transformer")["text_embed_dim"]
        dtype = self._published_dtype
        return text_network("T5EncoderModel", self._parts, self._length, width, dtype)

    def load(self, device: torch.device, dtype: torch.dtype) -> CogVideoXBackbone:
        denoiser = self._parts.network("transformer", device, dtype)
        return CogVideoXBackbone(denoiser, self._parts.scheduler(), self._vocabulary)

    @classmethod
    def adopt(cls, pipeline: object) -> CogVideoXBackbone | None:
        """None where a pipeline has no CogVideoX, or one that is told more than text."""
        from diffusers import CogVideoXTransformer3DModel

        denoiser = getattr(pipeline, "transformer", None)
        if not isinstance(denoiser, CogVideoXTransformer3DModel) or reads_more(denoiser.config):
            return None
        return CogVideoXBackbone(denoiser, pipeline.scheduler)

    @property
    def _parts(self) -> Parts:
        published = PUBLISHED[self.config or "5b"]
        layers = {"num_layers": self.layers} if self.layers else {}
        drawn = published | {"transformer": published["transformer"] | layers}
        return Parts(LAYOUT, self.weights, self.variant, self.revision, self.seed or 0, drawn)

    @property
    def _vocabulary(self) -> Words | None:
        return words_of(self._parts, self._tokenizer, "d_model", self.load_text_encoder)

    def _tokenizer(self) -> T5Tokenizer:
        return kept(load_t5_tokenizer, self._parts.checkpoint)

    @property
    def _length(self) -> int:
        """Tokens of text, to which prompts are padded."""
        return self._parts.config("transformer")["max_text_seq_length"]

    @property
    def _published_dtype(self) -> torch.dtype:
        """Of text encoder and VAE."""
        return torch.bfloat16 if self._rotary else torch.float16

    @property
    def _rotary(self) -> bool:
        return self._parts.config("transformer")["use_rotary_positional_embeddings"]


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
