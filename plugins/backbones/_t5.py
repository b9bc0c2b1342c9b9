"""A T5 encoder as CogVideoX reads prompts: padded to one length, and unmasked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ._checkpoint import Checkpoint, load_network
from ._vocabulary import checkpoint_layers

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import T5EncoderModel, T5Tokenizer

SHOWN = 60  # characters of a long prompt
TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")


@frozen(eq=False)
class T5Text:
    """A tokenizer and an encoder of a checkpoint"""

    tokenizer: T5Tokenizer
    network: T5EncoderModel
    length: int  # tokens that every prompt is padded to

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D), in the network's type
        return self.network(self._tokens(prompts))[0]

    @torch.no_grad()
    def vectors(self, prompts: Sequence[str]) -> Tensor:  # (B, L, E), in the network's type
        return self.network.get_input_embeddings()(self._tokens(prompts))

    def encode(self, vectors: Tensor, prompts: Sequence[str]) -> Tensor:  # (B, L, E) -> (B, L, D)
        with torch.autocast(vectors.device.type, enabled=False):
            return self.network(inputs_embeds=vectors.to(self.network.dtype))[0]

    def checkpoint_gradients(self) -> None:
        checkpoint_layers(self.network.encoder.block)

    def _tokens(self, prompts: Sequence[str]) -> Tensor:  # (B, L)
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=self.length)
        ids = tokens.input_ids
        assert all(len(each) == self.length for each in ids), "a prompt is too long"
        return torch.tensor(ids, device=self.network.device)


def load_t5(checkpoint: Checkpoint, length: int, device: torch.device) -> T5Text:
    """The encoder in the type that it is stored in. Raises JtError."""
    network = load_network("T5EncoderModel", checkpoint, "text_encoder", device)
    return T5Text(load_t5_tokenizer(checkpoint), network, length)


def load_t5_tokenizer(checkpoint: Checkpoint) -> T5Tokenizer:
    """Raises JtError."""
    from transformers import T5Tokenizer

    checkpoint.expect("tokenizer", *TOKENIZERS)
    return checkpoint.read("tokenizer", T5Tokenizer.from_pretrained)


def too_long(tokenizer: T5Tokenizer, prompts: Sequence[str], length: int) -> list[str]:
    """What to tell of prompts with more than `length` tokens, their end included."""
    found = []
    for prompt in prompts:
        tokens = len(tokenizer(prompt, verbose=False).input_ids)
        if tokens > length:
            shown = prompt if len(prompt) <= SHOWN else f"{prompt[:SHOWN]}..."
            found.append(f"{shown!r} has {tokens} tokens; this checkpoint reads {length}")
    return found
