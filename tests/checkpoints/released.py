"""The lists of tensors that released code saves, by its order and formula written out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
SELF, OTHER = ([f"{which}.{one}" for one in ATTENTION] for which in ("attn1", "attn2"))
FORWARD = ["ff.net.0.proj", "ff.net.2"]
STAGES = ("down_blocks.0.{}.0", "up_blocks.1.{}.0", "up_blocks.1.{}.1", "mid_block.{}.0")
SPATIAL = [
    f"{stage.format('attentions')}.transformer_blocks.0.{layer}"
    for stage in STAGES
    for layer in SELF + FORWARD
]
TEMPORAL = [
    f"{stage.format('temp_attentions')}.transformer_blocks.0.{layer}"
    for stage in ("transformer_in", *STAGES)
    for layer in SELF + OTHER + FORWARD
]
COGVIDEOX = [f"transformer_blocks.{block}.{layer}" for block in (0, 1) for layer in SELF + FORWARD]


class Wrapped(nn.Module):
    """The released wrapper of a linear: W x + b + mean(sigmoid(w . x)) * up down x"""

    def __init__(self, linear: nn.Linear, rank: int, gated: bool):
        super().__init__()
        wide, narrow = linear.out_features, linear.in_features
        self.linear = linear
        self.up, self.down = 0.3 * torch.randn(wide, rank), 0.3 * torch.randn(rank, narrow)
        self.gate = torch.randn(1, narrow) if gated else None

    def forward(self, x: Tensor) -> Tensor:  # (N, T, in) -> (N, T, out)
        update = x @ self.down.T @ self.up.T
        if self.gate is None:
            return self.linear(x) + update
        gate = 1 / (1 + torch.exp(-(x @ self.gate.T)))  # (N, T, 1)
        return self.linear(x) + update * gate.mean(0).mean(0)


def wrap(network: nn.Module, names: Sequence[str], gated: bool = True) -> list[Tensor]:
    """Wrap linears in place, and return the list that the released code saves."""
    saved = []
    for name in names:
        parent, _, child = name.rpartition(".")
        wrapped = Wrapped(network.get_submodule(name), 2, gated)
        setattr(network.get_submodule(parent), child, wrapped)
        saved += [wrapped.up, wrapped.down, *([wrapped.gate] if gated else [])]
    return saved
