"""Text encoders without weights, for those who reckon what they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jtcore.types import TextNetwork

from ._networks import bare_network, freeze

if TYPE_CHECKING:
    import torch

    from ._pretrained import Parts

_T5_XXL = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {  # by class
    "T5EncoderModel": {**_T5_XXL, "vocab_size": 32128},
    "UMT5EncoderModel": {**_T5_XXL, "vocab_size": 256384},
    "CLIPTextModel": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 23,
        "hidden_act": "gelu",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
}


def text_network(
    name: str, parts: Parts, tokens: int, width: int, dtype: torch.dtype
) -> TextNetwork:
    """The class `name` of transformers on the meta device: the published one, or a checkpoint's. It
    reads prompts of so many `tokens` and answers vectors of `width`."""
    import torch

    config = PUBLISHED[name] if parts.random else parts.checkpoint.config("text_encoder")
    meta = torch.device("meta")
    network = bare_network(name, config, meta)
    if dtype is torch.bfloat16:  # what transformers keeps in float32 it does in float16 alone
        network = network.to(dtype)
    return TextNetwork(
        freeze(network, meta, None if network.dtype is dtype else dtype), tokens, width
    )
