"""Blocks of stock denoisers, written out, so that a test can add to them wherever it likes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

Tensors = dict[str, Tensor]
# the name of a module, and what it reads (h) or what the stream is before it (x): what is added
Added = Callable[[str, Tensor], Tensor | float]


def nothing(name: str, x: Tensor) -> float:
    return 0.0


def bottleneck(tensors: Tensors, x: Tensor, y: Tensor | None = None) -> Tensor:
    """U GELU(D (x + V y + c) + b) + b' of an x (B, L, c) and a y (B, E), out of a state dict."""
    if y is not None:
        x = x + linear(y, tensors["condition.weight"], tensors["condition.bias"])[:, None]
    hidden = gelu(linear(x, tensors["down.weight"], tensors["down.bias"]))
    return linear(hidden, tensors["up.weight"], tensors["up.bias"])


def of(adapter: nn.Module, place: str) -> Tensors:
    """The tensors of an adapter below a place, with their gradients."""
    prefix = f"{place}."
    return {
        name.removeprefix(prefix): weight
        for name, weight in adapter.named_parameters()
        if name.startswith(prefix)
    }


def unet(
    block: nn.Module, x: Tensor, text: Tensor | None, inside: Added = nothing, onto: Added = nothing
) -> Tensor:
    """diffusers' `BasicTransformerBlock`, which has no gates."""
    h = block.norm1(x)
    x = x + block.attn1(h) + inside("attn1", h) + onto("attn1", x)
    h = block.norm2(x)
    x = x + block.attn2(h, encoder_hidden_states=text) + inside("attn2", h) + onto("attn2", x)
    h = block.norm3(x)
    return x + block.ff(h) + inside("ff", h) + onto("ff", x)


def wan(
    block: nn.Module,
    x: Tensor,
    text: Tensor,
    time: Tensor,  # (B, 6, c)
    rotary: Any,
    inside: Added = nothing,
    onto: Added = nothing,
) -> Tensor:
    """Wan's block: attention and feed-forward are gated, the attention to the text is not."""
    shift, scale, gate, shift2, scale2, gate2 = (block.scale_shift_table + time).chunk(6, 1)
    h = block.norm1(x) * (1 + scale) + shift
    x = x + gate * (block.attn1(h, None, None, rotary) + inside("attn1", h)) + onto("attn1", x)
    h = block.norm2(x)
    x = x + block.attn2(h, text, None, None) + inside("attn2", h) + onto("attn2", x)
    h = block.norm3(x) * (1 + scale2) + shift2
    return x + gate2 * (block.ffn(h) + inside("ffn", h)) + onto("ffn", x)


def cogvideox(
    block: nn.Module,
    x: Tensor,
    text: Tensor,
    time: Tensor,  # (B, T)
    rotary: Any,
    inside: Added = nothing,
    onto: Added = nothing,
) -> tuple[Tensor, Tensor]:
    """CogVideoX's block: text and video are joined, text first, and gated each for itself. `onto`
    is asked of the video alone."""
    words = text.shape[1]
    h, e, gate, text_gate = block.norm1(x, text, time)
    h_out, e_out = block.attn1(hidden_states=h, encoder_hidden_states=e, image_rotary_emb=rotary)
    joined = torch.cat([e_out, h_out], 1) + inside("attn1", torch.cat([e, h], 1))
    x = x + gate * joined[:, words:] + onto("attn1", x)
    text = text + text_gate * joined[:, :words]
    h, e, gate, text_gate = block.norm2(x, text, time)
    joined = torch.cat([e, h], 1)
    joined = block.ff(joined) + inside("ff", joined)
    x = x + gate * joined[:, words:] + onto("ff", x)
    return x, text + text_gate * joined[:, :words]
