"""Bottleneck networks beside attention and feed-forward, which an image may condition."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jtcore.types import Pass

from ._linear import laid_over

Activation = Literal["between", "after"]
Condition = Literal["add", "multiply"]


class Bottleneck(nn.Module):
    """U GELU(D x + b) + b' on tokens of `channels`; U and b' are zero until they have learned.

    With a `reference` width, x is first moved by what an image embedding y says of it: x + V y + c
    ("add"), or x * (V y + c) ("multiply"). `activation` "after" is GELU(U D x). Parameters are
    float32 whatever the denoiser is, and computed with in the input's dtype, as autocast does.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        reference: int | None,
        device: torch.device,
        activation: Activation = "between",
        condition: Condition = "add",
    ) -> None:
        super().__init__()
        self.activation, self.way = activation, condition
        self.down = linear(channels, width, device)
        self.up = linear(width, channels, device, zero=True)
        self.condition = linear(reference, channels, device) if reference else None

    def forward(self, x: Tensor, now: Pass) -> Tensor:  # (N, ..., channels) -> the same
        hidden = biased(self.down, self.conditioned(x, now))
        if self.activation == "between":
            return biased(self.up, functional.gelu(hidden))
        return functional.gelu(biased(self.up, hidden))

    def conditioned(self, x: Tensor, now: Pass) -> Tensor:
        """Without a picture, as x is: no bias of the condition either."""
        if self.condition is None or now.reference is None:
            return x
        embedding, strength = now.reference.embedding, now.reference.strength
        assert embedding.shape[1] == self.condition.in_features, "of another image encoder"
        said = biased(self.condition, embedding.to(x)) * strength[:, None].to(x)
        if self.way == "add":
            return x + laid_over(said, x)
        return x * laid_over(said + (1 - strength[:, None].to(x)), x)


def per_sample(scale: float | Tensor) -> float | Tensor:  # (B, 1, ...) -> (B,)
    return scale.flatten() if isinstance(scale, Tensor) else scale


def linear(inputs: int, outputs: int, device: torch.device, zero: bool = False) -> nn.Linear:
    """With PyTorch's initial weights out of the global CPU generator, the same on every device."""
    on = torch.device("meta" if device.type == "meta" else "cpu")
    layer = nn.Linear(inputs, outputs, device=on)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer.to(device)


def biased(layer: nn.Linear, x: Tensor) -> Tensor:  # (N, ..., in) -> (N, ..., out)
    return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
