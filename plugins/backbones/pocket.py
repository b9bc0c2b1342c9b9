"""Pocket as a backbone: CogVideoX in miniature, inside this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Generator, Tensor, nn

from jtcore import JtError, hookimpl

from ..pocket import codec, models, text, world
from ..pocket.captions import vocabulary
from ._checkpoint import Checkpoint, freeze, load_network
from ._cogvideox import CogVideoXBackbone

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

Read = TypeVar("Read")


@frozen
class Pocket:
    """The embedded text-to-video model: 2 M parameters, 24x24 px sprites, made for a CPU

    `weights` is "shipped", a folder that `jt-pocket` wrote, or "random", which draws them from
    `seed` and generates noise.
    """

    weights: str = "shipped"
    seed: int = field(default=0, validator=ge(0))

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip in px. Raises ValueError where it is not of the one size there is:
        positions are part of the weights. Raises JtError where the codec is of other sizes."""
        if self.weights != "random":
            self._read_codec(codec.check_config)
        side = world.SIZE
        if (height, width) != (side, side):
            raise ValueError(
                f"pocket knows one size of frame, found {height}x{width} px; the nearest is"
                f" {side}x{side}"
            )
        return codec.CHANNELS, frames, side // codec.BLOCK, side // codec.BLOCK

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Prompts that are too long, or have words that pretraining never had."""
        tokenizer = self._tokenizer()
        return [problem for prompt in prompts for problem in _prompt_problems(tokenizer, prompt)]

    def denoiser_identity(self) -> str:
        return self._identity("transformer", "scheduler")

    def text_identity(self) -> str:
        return self._identity("text_encoder", "tokenizer")

    def codec_identity(self) -> str:
        return self._identity("codec")

    def load_text_encoder(self, device: torch.device) -> PocketText:
        if self.weights == "random":
            parts = self._random()
            return PocketText(parts.tokenizer, parts.text_encoder.to(device))
        network = self._network("T5EncoderModel", "text_encoder", device, torch.float32)
        return PocketText(self._tokenizer(), network)

    def load_codec(self, device: torch.device) -> PocketCodec:
        if self.weights == "random":
            return PocketCodec(self._random().codec.to(device))
        return PocketCodec(self._read_codec(codec.PatchCodec.from_pretrained).to(device))

    def load(self, device: torch.device, dtype: torch.dtype) -> CogVideoXBackbone:
        from diffusers import CogVideoXDDIMScheduler

        if self.weights == "random":
            parts = self._random()
            return CogVideoXBackbone(freeze(parts.transformer, device, dtype), parts.scheduler)
        return CogVideoXBackbone(
            self._network("CogVideoXTransformer3DModel", "transformer", device, dtype),
            CogVideoXDDIMScheduler.from_pretrained(self._folder("scheduler")),
        )

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        from transformers import PreTrainedTokenizerFast

        if self.weights == "random":
            return text.build_tokenizer()
        return PreTrainedTokenizerFast.from_pretrained(self._folder("tokenizer"))

    def _random(self) -> models.Pocket:
        with torch.random.fork_rng(devices=[]):
            return models.build(self.seed)

    def _network(self, name: str, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
        checkpoint = Checkpoint(str(self._folder(part).parent))
        return load_network(name, checkpoint, part, device, dtype)

    def _read_codec(self, read: Callable[[Path], Read]) -> Read:
        folder = self._folder("codec")
        try:
            return read(folder)
        except JtError as error:
            raise JtError(f"backbone.weights: {problem}" for problem in error.problems) from error

    def _folder(self, part: str) -> Path:
        """Where a component is on disk. Raises JtError where it is not."""
        root = models.SHIPPED if self.weights == "shipped" else Path(self.weights)
        if (root / part).is_dir():
            return root / part
        if self.weights == "shipped":
            raise JtError(
                f"backbone.weights: pocket's {part} is not in this installation;"
                " `jt-pocket pretrain` makes weights"
            )
        raise JtError(
            f"backbone.weights: no folder {part!r} in {self.weights!r}; expected what"
            ' `jt-pocket pretrain` wrote, "shipped" or "random"'
        )

    def _identity(self, *parts: str) -> str:
        """A hash of the files of `parts`, or of the seed, and of the code that reads them."""
        files = [Path(__file__), *(Path(module.__file__) for module in (models, codec, text))]
        digest = sha256()
        if self.weights == "random":
            digest.update(f"random {self.seed} {vocabulary()}".encode())
        else:
            files += [path for part in parts for path in sorted(self._folder(part).iterdir())]
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()


@frozen(eq=False)
class PocketText:
    """A word-level tokenizer and a T5 encoder"""

    tokenizer: PreTrainedTokenizerFast
    network: T5EncoderModel

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D)
        """Padded to one length and unmasked, as in CogVideoX. Raises JtError if one is too long."""
        return text.embed(self.tokenizer, self.network, prompts)


def _prompt_problems(tokenizer: PreTrainedTokenizerFast, prompt: str) -> Iterator[str]:
    if problem := text.length_problem(prompt, tokenizer(prompt).input_ids):
        yield problem
    unknown = [
        word for word in prompt.split() if tokenizer(word).input_ids[0] == tokenizer.unk_token_id
    ]
    if unknown:
        words = ", ".join(map(repr, dict.fromkeys(unknown)))
        yield f"{prompt!r} has words that pocket does not know: {words}; see `jt-pocket list`"


@frozen(eq=False)
class PocketCodec:
    """The patch codec behind a VAE's interface"""

    patches: codec.PatchCodec

    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        """(B, 3, frames, height, width) in [-1, 1] -> (B, C, F, H, W); `rng` is not drawn from."""
        return self.patches.encode(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, 3, frames, height, width) in [-1, 1]."""
        return self.patches.decode(latents).clamp(-1, 1)


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"pocket": Pocket}
