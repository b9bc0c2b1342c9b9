"""CLIP's text encoder (https://arxiv.org/abs/2103.00020) as ZeroScope and ModelScope use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ._checkpoint import Checkpoint, load_network
from ._vocabulary import checkpoint_layers

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import CLIPTextModel, CLIPTokenizer

TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")


@frozen(eq=False)
class CLIPText:
    """A tokenizer and an encoder that is shown the padding too, in float32"""

    tokenizer: CLIPTokenizer
    network: CLIPTextModel

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D)
        """The last hidden states, of 77 tokens."""
        return self.network(self._tokens(prompts)).last_hidden_state

    @torch.no_grad()
    def vectors(self, prompts: Sequence[str]) -> Tensor:  # (B, L, E)
        return self.network.get_input_embeddings()(self._tokens(prompts))

    def encode(self, vectors: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, L, E) -> (B, L, D); the class takes no vectors, so they answer for its vocabulary."""
        words = self.network.get_input_embeddings()
        hook = words.register_forward_hook(lambda *_: vectors.to(self.network.dtype))
        try:
            with torch.autocast(vectors.device.type, enabled=False):
                return self.network(self._tokens(prompts)).last_hidden_state
        finally:
            hook.remove()

    def checkpoint_gradients(self) -> None:
        checkpoint_layers(self.network.encoder.layers)

    def _tokens(self, prompts: Sequence[str]) -> Tensor:  # (B, L)
        most = self.tokenizer.model_max_length
        tokens = self.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
        assert tokens.shape[1] == most, "a prompt is too long"
        return tokens.to(self.network.device)


def load_clip(checkpoint: Checkpoint, device: torch.device) -> CLIPText:
    """Raises JtError."""
    tokenizer = load_clip_tokenizer(checkpoint)
    network = load_network("CLIPTextModel", checkpoint, "text_encoder", device, torch.float32)
    return CLIPText(tokenizer, network)


def load_clip_tokenizer(checkpoint: Checkpoint) -> CLIPTokenizer:
    """Raises JtError."""
    from transformers import CLIPTokenizer

    checkpoint.expect("tokenizer", *TOKENIZERS)
    return checkpoint.read("tokenizer", CLIPTokenizer.from_pretrained)


def too_long(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> list[str]:
    """What to tell of prompts that have more tokens than CLIP reads; two of these mark the ends."""
    most = tokenizer.model_max_length
    counts = [(prompt, len(tokenizer(prompt, verbose=False).input_ids)) for prompt in prompts]
    return [
        f"{prompt!r} has {count - 2} tokens; CLIP reads {most - 2}"
        for prompt, count in counts
        if count > most
    ]
