"""Pocket as a backbone: CogVideoX in miniature, inside this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache as once
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import nn

from jtcore import JtError, hookimpl
from jtcore.types import TextNetwork

from ..pocket import codec, models, text, world
from ..pocket.captions import vocabulary
from . import _cogvideox, _t5
from ._checkpoint import Checkpoint, kind_hint, load_network
from ._cogvideox import CogVideoXBackbone
from ._hub import Folder
from ._networks import freeze
from ._t5 import T5Text
from ._vocabulary import Words
from ._weight_files import find_weights
from ._words import positions

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import PreTrainedTokenizerFast

PARTS = ("transformer", "scheduler", "codec", "text_encoder", "tokenizer")
NETWORKS = {  # and whose files they are like
    "transformer": "diffusers",
    "codec": "transformers",
    "text_encoder": "transformers",
}
CODE = {"transformer": (_cogvideox,), "text_encoder": (_t5, text), "codec": (codec,)}

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

    def weights_problems(self) -> list[str]:
        """Files that are missing or cut off."""
        if self.weights == "random":
            return []
        root, found = self._folder("codec").parent, []
        for part, library in NETWORKS.items():
            try:
                find_weights(Folder(root), part, library, None)
            except (OSError, ValueError) as error:
                found.append(f"backbone.weights: {part!r} of {self.weights!r} {error}")
        return found

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Tokens of `embed` that spell a phrase. Raises JtError where the prompt has it not."""
        return positions(self._tokenizer(), prompt, phrase)

    def denoiser_identity(self) -> str:
        return self._identity("transformer", "scheduler")

    def text_identity(self) -> str:
        return self._identity("text_encoder", "tokenizer")

    def codec_identity(self) -> str:
        return self._identity("codec")

    def load_text_encoder(self, device: torch.device) -> T5Text:
        if self.weights == "random":
            parts = self._random()
            return T5Text(parts.tokenizer, parts.text_encoder.to(device), text.LENGTH)
        network = self._network("T5EncoderModel", "text_encoder", device, torch.float32)
        return T5Text(self._tokenizer(), network, text.LENGTH)

    def text_network(self, device_type: str) -> TextNetwork:
        loaded = self.load_text_encoder(torch.device("cpu")).network
        with torch.device("meta"):  # built anew: what is moved there shares no weights any more
            network = type(loaded)(loaded.config)
        return TextNetwork(network, text.LENGTH, text.WIDTH)

    def load_codec(self, device: torch.device) -> codec.PocketCodec:
        if self.weights == "random":
            return codec.PocketCodec(self._random().codec.to(device))
        return codec.PocketCodec(self._read_codec(codec.PatchCodec.from_pretrained).to(device))

    def load(self, device: torch.device, dtype: torch.dtype) -> CogVideoXBackbone:
        from diffusers import CogVideoXDDIMScheduler

        if self.weights == "random":
            parts = self._random()
            denoiser = freeze(parts.transformer, device, dtype)
            return CogVideoXBackbone(denoiser, parts.scheduler, self._vocabulary)
        return CogVideoXBackbone(
            self._network("CogVideoXTransformer3DModel", "transformer", device, dtype),
            CogVideoXDDIMScheduler.from_pretrained(self._folder("scheduler")),
            self._vocabulary,
        )

    @property
    def _vocabulary(self) -> Words:
        return Words(once(self._tokenizer), lambda: text.WIDTH, self.load_text_encoder)

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
        """Where a component is on disk. Raises JtError where any is not."""
        root = models.SHIPPED if self.weights == "shipped" else Path(self.weights)
        lacking = [each for each in PARTS if not (root / each).is_dir()]
        if not lacking:
            return root / part
        if self.weights == "shipped":
            raise JtError(
                f"backbone.weights: pocket's {lacking[0]} is not in this installation;"
                " `jt-pocket pretrain` makes weights"
            )
        raise JtError(
            f"backbone.weights: no folder {lacking[0]!r} in {self.weights!r}; expected what"
            f' `jt-pocket pretrain` wrote, "shipped" or "random"{kind_hint(root)}'
        )

    def _identity(self, *parts: str) -> str:
        """A hash of the files of `parts`, or of the seed, and of the code that works with them."""
        code = [module for part in parts for module in CODE.get(part, ())]
        digest = sha256()
        if self.weights == "random":
            code.append(models)
            digest.update(f"random {self.seed} {vocabulary()}".encode())
        files = [Path(module.__file__) for module in code]
        if self.weights != "random":
            files += [path for part in parts for path in sorted(self._folder(part).iterdir())]
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()


def _prompt_problems(tokenizer: PreTrainedTokenizerFast, prompt: str) -> Iterator[str]:
    if problem := text.length_problem(prompt, tokenizer(prompt).input_ids):
        yield problem
    unknown = [
        word for word in prompt.split() if tokenizer(word).input_ids[0] == tokenizer.unk_token_id
    ]
    if unknown:
        words = ", ".join(map(repr, dict.fromkeys(unknown)))
        yield f"{prompt!r} has words that pocket does not know: {words}; see `jt-pocket list`"


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"pocket": Pocket}
