"""Low-rank updates of linear layers: what plain and gated LoRA share."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jtcore import JtError
from jtcore.adapter import Adapter
from jtcore.types import Pass

Init = Literal["normal", "kaiming"]
Side = Literal["input", "output"]


class LinearAdapter(Adapter):
    """An update beside each target linear, stored under that linear's own dotted path.

    Forward hooks add the updates, so that the denoiser keeps its modules and their names, and any
    number of adapters stack in any order. Raises JtError where a target is not a linear layer.
    """

    def __init__(
        self, targets: Mapping[str, nn.Module], build: Callable[[nn.Linear], "LowRank"]
    ) -> None:
        super().__init__()
        _refuse_others(targets)
        for name, linear in targets.items():
            update = build(linear)
            place(self, name, update)
            linear.register_forward_hook(partial(self._add, update))

    def _add(
        self, update: "LowRank", linear: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor | None:  # (N, ..., out), or None to leave the output as it is
        if self.current is None:
            return None
        added = update(inputs[0], self.current)
        if not self.training:  # it is told of validation and sampling, and costs training nothing
            update.relative = relative_size(added.detach(), output.detach())
        return output + added

    def scalars(self) -> Mapping[str, Tensor]:
        """Outside training, the mean over layers of |update| / |output| in the last pass: ()."""
        if self.training:
            return {}
        layers = [layer for layer in self.modules() if isinstance(layer, LowRank)]
        sizes = [layer.relative for layer in layers if layer.relative is not None]
        return {"relative_update": torch.stack(sizes).mean()} if sizes else {}

    def low_rank(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """`down` (rank, in), and `up` (out, rank) with the scaling in it."""
        layers = {n: layer for n, layer in self.named_modules() if isinstance(layer, LowRank)}
        return {n: (one.down.weight, one.scaling * one.up.weight) for n, one in layers.items()}


class LowRank(nn.Module):
    """The update of one linear, `scaling * up(down(x))`: zero until `up` has learned.

    Parameters are float32 whatever the linear is, and computed with in the input's dtype, as
    autocast does. `down` starts from N(0, 1/rank^2) ("normal") or U(+-1/sqrt(in)) ("kaiming").
    Raises JtError where the rank is more than the layer's.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        init: Init = "normal",
        scaling: float = 1.0,
        dropout: float = 0.0,
        dropout_on: Side = "output",
    ) -> None:
        super().__init__()
        if rank > (most := min(linear.in_features, linear.out_features)):
            raise JtError(
                f"rank {rank} is more than the layer of {linear.in_features} to"
                f" {linear.out_features} features can have; take at most {most}"
            )
        device = linear.weight.device
        self.scaling = scaling
        self.relative: Tensor | None = None  # (), |update| / |output| of the last pass
        self.down = matrix(draw(init, rank, linear.in_features, rank, device))
        self.up = matrix(torch.zeros(linear.out_features, rank, device=device))
        self.before = nn.Dropout(dropout if dropout_on == "input" else 0.0)
        self.after = nn.Dropout(dropout if dropout_on == "output" else 0.0)

    def forward(self, x: Tensor, now: Pass) -> Tensor:  # (N, ..., in) -> (N, ..., out)
        hidden = times(self.down, self.before(x))
        # the strength is applied where the tensor is narrowest: activations are what training keeps
        hidden = hidden * spread(self.strength(x, now), hidden, now.batch)
        return self.after(times(self.up, hidden))

    def strength(self, x: Tensor, now: Pass) -> float | Tensor:  # of x (N, ..., in); (B, 1, ...)
        """What `up(down(x))` is multiplied with."""
        return self.scaling * now.scale


def relative_size(update: Tensor, output: Tensor) -> Tensor:  # ()
    """|update| / |output|; of no output at all, what is nearest."""
    return update.float().norm() / output.float().norm().clamp_min(torch.finfo(torch.float32).tiny)


def spread(scale: float | Tensor, x: Tensor, batch: int) -> float | Tensor:  # -> (N, 1, ...)
    """The `scale` (B, 1, ...) of each sample, laid over an `x` (N, ...) whose first axis is the
    batch, or has each sample's frames or pixels folded into it with the sample outermost."""
    if not isinstance(scale, Tensor):
        return scale
    assert len(x) % batch == 0, f"a layer's first axis, {len(x)}, does not hold {batch} samples"
    each = scale.reshape(batch).repeat_interleave(len(x) // batch)
    return each.view(-1, *[1] * (x.ndim - 1)).to(x)


def times(weights: nn.Linear, x: Tensor) -> Tensor:  # (N, ..., in) -> (N, ..., out)
    return functional.linear(x, weights.weight.to(x.dtype))


def matrix(weight: Tensor) -> nn.Linear:  # (out, in)
    """A linear without bias that has `weight`."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight)
    return linear


def draw(init: Init, rows: int, columns: int, rank: int, device: torch.device) -> Tensor:
    """Initial weights (rows, columns) from the global CPU generator, the same on every device."""
    on = "meta" if device.type == "meta" else "cpu"
    if init == "normal":
        return (torch.randn(rows, columns, device=on) / rank).to(device)
    return ((2 * torch.rand(rows, columns, device=on) - 1) / columns**0.5).to(device)


def _refuse_others(targets: Mapping[str, nn.Module]) -> None:
    others = {
        name: type(module).__name__
        for name, module in targets.items()
        if not isinstance(module, nn.Linear)
    }
    if others:
        (name, kind), more = next(iter(others.items())), len(others) - 1
        tail = f" and {more} more" if more else ""
        raise JtError(
            f"low-rank adapters need linear layers, but the targets include"
            f" {name!r} ({kind}){tail}; narrow `targets` to linear layers"
        )


def place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Make `module` the submodule of `root` at the dotted `path`."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)
