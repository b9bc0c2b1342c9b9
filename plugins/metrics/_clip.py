"""CLIP (https://arxiv.org/abs/2103.00020) as metrics look through it, over transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import normalize

from ..backbones._networks import quiet
from ._checkpoints import Checkpoint
from ._preparations import Preparation

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

VIT_B_32 = "openai/clip-vit-base-patch32"
KINDS = ("clip",)


def with_pictures(model: str) -> Checkpoint:
    """A CLIP of which pictures are asked, prepared as it says itself."""
    return Checkpoint("model", model, ("network", "pictures"), KINDS)


def with_words(model: str) -> Checkpoint:
    """The same, and asked of words."""
    return Checkpoint("model", model, ("network", "pictures", "words"), KINDS)


def bare(model: str) -> Checkpoint:
    """A CLIP whose pictures others prepare."""
    return Checkpoint("model", model, ("network",), KINDS)


def side(checkpoint: Checkpoint) -> int:
    """Of the squares that it sees, in px. Raises JtError."""
    return checkpoint.config().get("vision_config", {}).get("image_size", 224)


@frozen(eq=False)
class Looking:
    """Pictures embedded by a network, so many at once"""

    network: Callable[[Tensor], Tensor]  # (B, 3, height, width) -> (B, E)
    prepare: Preparation
    batch: int
    device: torch.device

    @torch.no_grad()
    def embed(self, pictures: Sequence[Tensor]) -> Tensor:  # uint8 (3, H, W) each -> (N, E)
        """Of length 1, in float64 on the CPU."""
        found = [
            self.network(self.prepare(pictures[start : start + self.batch]).to(self.device)).cpu()
            for start in range(0, len(pictures), self.batch)
        ]
        return normalize(torch.cat(found).double(), dim=1)


@frozen(eq=False)
class Reading:
    """Words embedded by a CLIP"""

    network: CLIPModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def embed(self, prompt: str) -> Tensor:  # (E,)
        """Of length 1, in float64 on the CPU; what is beyond the network's tokens is cut off."""
        ids = self.tokenizer(
            prompt, truncation=True, max_length=self._room, return_tensors="pt"
        ).input_ids.to(self.network.device)
        return normalize(self.network.get_text_features(ids).pooler_output[0].double(), dim=0).cpu()

    def cut_off(self, prompt: str) -> int:
        """How many tokens of a prompt it does not read."""
        return max(0, len(self.tokenizer(prompt, verbose=False).input_ids) - self._room)

    @property
    def _room(self) -> int:
        return self.network.config.text_config.max_position_embeddings


def look(network: CLIPModel, prepare: Preparation, batch: int) -> Looking:
    def embed(pixels: Tensor) -> Tensor:
        return network.get_image_features(pixels).pooler_output

    return Looking(embed, prepare, batch, network.device)


def read(network: CLIPModel, words: Checkpoint) -> Reading:
    """With the tokenizer of a checkpoint. Raises JtError."""
    from transformers import CLIPTokenizer

    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(words.root(), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise words.problem(f"has no usable tokenizer: {told[0]}") from error
    return Reading(network, tokenizer)


def scale(network: CLIPModel) -> float:
    """What the network multiplies cosines with: 100 in the published ones."""
    return network.logit_scale.exp().item()
