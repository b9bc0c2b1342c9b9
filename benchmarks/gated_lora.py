"""GLoRA beside a linear layer: ours against the formula as the released code computes it.

The released code gates the output of the up-projection, at the layer's full width, and draws
dropout there; ours gates at the rank's width. Both train in fp32 here, on the tokens of a small
video in a layer of CogVideoX-2B's width.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.compare import Row, time_pair
from benchmarks.reference_step import Unfused
from jtcore.adapter import switched_on
from jtcore.plugins import load_plugins

WIDTH, TOKENS, RANK, DROPOUT = 1920, 2048, 128, 0.1


def measure() -> Iterator[Row]:
    """Seconds of forward and backward, and bytes kept for backward."""
    base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    reference = Unfused(base, RANK, DROPOUT)
    spec = load_plugins().find("adapters", "glora")(targets="", rank=RANK, dropout=DROPOUT)
    own = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    adapter = spec.attach(SimpleNamespace(targets=lambda query: {"layer": own}), {})
    x = torch.randn(1, TOKENS, WIDTH, requires_grad=True)

    def ours() -> None:
        with switched_on({adapter: 1.0}, 1):
            own(x).square().mean().backward()

    def theirs() -> None:
        reference(x, base(x)).square().mean().backward()

    yield time_pair(f"GLoRA layer, width {WIDTH}, rank {RANK}: step", ours, theirs)
    kept = [_kept(work) / 2**20 for work in (ours, theirs)]
    yield Row("the same: activations kept for backward", *kept, "MiB")


def _kept(work) -> int:
    """Bytes of the distinct tensors that autograd keeps."""
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(storages.values())
