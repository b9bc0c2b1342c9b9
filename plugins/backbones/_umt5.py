"""UMT5 (https://arxiv.org/abs/2304.09151) as Wan reads captions: cleaned, masked, zeros after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ._checkpoint import Checkpoint, load_network
from ._t5 import load_t5_tokenizer
from ._vocabulary import checkpoint_layers

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import BatchEncoding, T5Tokenizer, UMT5EncoderModel

LENGTH = 512  # tokens, that which ends a caption among them


@frozen(eq=False)
class UMT5Text:
    """A tokenizer and an encoder that sees nothing of the padding"""

    tokenizer: T5Tokenizer
    network: UMT5EncoderModel

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D), zeros after each prompt's end
        tokens = self._tokens(prompts)
        text = self.network(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return text.masked_fill(tokens.attention_mask[..., None] == 0, 0)

    @torch.no_grad()
    def vectors(self, prompts: Sequence[str]) -> Tensor:  # (B, L, E), in the network's type
        return self.network.get_input_embeddings()(self._tokens(prompts).input_ids)

    def encode(self, vectors: Tensor, prompts: Sequence[str]) -> Tensor:  # (B, L, E) -> (B, L, D)
        mask = self._tokens(prompts).attention_mask
        with torch.autocast(vectors.device.type, enabled=False):
            text = self.network(attention_mask=mask, inputs_embeds=vectors.to(self.network.dtype))
        return text.last_hidden_state.masked_fill(mask[..., None] == 0, 0)

    def checkpoint_gradients(self) -> None:
        checkpoint_layers(self.network.encoder.block)

    def _tokens(self, prompts: Sequence[str]) -> BatchEncoding:
        """`input_ids` and `attention_mask`, each (B, L)."""
        tokens = self.tokenizer(
            [cleaned(prompt) for prompt in prompts],
            padding="max_length",
            max_length=LENGTH,
            return_tensors="pt",
        ).to(self.network.device)
        assert tokens.input_ids.shape[1] == LENGTH, "a prompt is too long"
        return tokens


def load_umt5(checkpoint: Checkpoint, device: torch.device) -> UMT5Text:
    """Raises JtError."""
    dtype = dtype_on(device.type)
    network = load_network("UMT5EncoderModel", checkpoint, "text_encoder", device, dtype)
    return UMT5Text(load_t5_tokenizer(checkpoint), network)


def dtype_on(device_type: str) -> torch.dtype:
    """bfloat16, as Wan's own code has it; on CPUs, which are slow at that, float32."""
    return torch.float32 if device_type == "cpu" else torch.bfloat16


def cleaned(prompt: str) -> str:
    """As diffusers' pipeline has it: entities unescaped, runs of spaces made one, and broken
    Unicode mended where ftfy is installed."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    return prompt_clean(prompt)


def cleaning() -> str:
    """Changes whenever `cleaned` would answer differently."""
    from diffusers.utils import is_ftfy_available

    return f"ftfy {is_ftfy_available()}"
