"""Low-rank updates of linear layers: what plain and gated LoRA share."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal

import torch
from attrs import Attribute
from torch import Tensor, nn

from jtcore import JtError
from jtcore.adapter import Adapter
from jtcore.types import Backbone, Pass

from ._accumulate import add, linear, tapped

Init = Literal["normal", "kaiming"]
Side = Literal["input", "output"]
Build = Callable[[nn.Linear], "LowRank"]


class LinearAdapter(Adapter):
    """An update beside each target linear, stored under that linear's own dotted path.

    Forward hooks add the updates, so that the denoiser keeps its modules and their names, and any
    number of adapters stack in any order. Of those in `first_detached`, the update of the first
    token passes no gradient on. Raises JtError where a target is not a linear layer.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        build: Callable[[nn.Linear], "LowRank | Bank"],
        first_detached: Collection[str] = (),
    ) -> None:
        super().__init__()
        refuse_others(targets)
        self.updates = {name: build(module) for name, module in targets.items()}
        self.varies = any(isinstance(update, Bank) for update in self.updates.values())
        self.compiles = not self.varies  # or each file would be compiled by itself
        for name, update in self.updates.items():
            place(self, name, update)
            if isinstance(update, LowRank) and name not in first_detached:
                targets[name].register_forward_pre_hook(partial(self._tap, update))
            hook = partial(self._add, update, name in first_detached)
            targets[name].register_forward_hook(hook)

    def _tap(
        self, update: "LowRank", linear: nn.Linear, inputs: tuple[Tensor, ...]
    ) -> Tensor | None:  # (N, ..., in), or None to leave the input as it is
        if self.current is None or not self.training or torch.compiler.is_compiling():
            return None
        return update.tap(inputs[0])

    def _add(
        self,
        update: "LowRank | Bank",
        first_detached: bool,
        linear: nn.Linear,
        inputs: tuple[Tensor, ...],
        output: Tensor,
    ) -> Tensor | None:  # (N, ..., out), or None to leave the output as it is
        if self.current is None:
            return None
        if self.training and isinstance(update, LowRank) and not first_detached:
            return update(inputs[0], self.current, output)
        if (added := update(inputs[0], self.current)) is None:
            return None
        if first_detached:
            added = torch.cat([added[:, :1].detach(), added[:, 1:]], 1)
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
        layers = {name: update.sampled() for name, update in self.updates.items()}
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
        device = next(linear.parameters()).device
        self.scaling = scaling
        self.relative: Tensor | None = None  # (), |update| / |output| of the last pass
        self.down = matrix(draw(init, rank, linear.in_features, rank, device))
        self.up = matrix(torch.zeros(linear.out_features, rank, device=device))
        self.dropout, self.dropout_on = dropout, dropout_on

    def forward(self, x: Tensor, now: Pass, output: Tensor | None = None) -> Tensor:
        """The update of an input (N, ..., in), (N, ..., out), or an `output` with it added, which
        may be written over."""
        product = getattr(x, "products", {}).get(self)
        if product is None:
            product = linear(x.to(computed_in(x)), self.rows(), self._chance("input"))
        hidden, strength = self.hidden(product, now)
        return add(output, hidden, strength, self.up.weight, self._chance("output"))

    def tap(self, x: Tensor) -> Tensor | None:
        """The input (N, ..., in) again for the linear itself, with the product that `forward` makes
        of it made already: the linear's gradient of its input is then added to in place.

        The product travels with that tensor, and is gone with it. None where no gradient of the
        input is asked for, or where the weights come only when `forward` is called.
        """
        if not (torch.is_grad_enabled() and x.requires_grad and self.down.weight.numel()):
            return None
        same, product = tapped(x, self.rows(), self._chance("input"), computed_in(x))
        same.products = {**getattr(x, "products", {}), self: product}
        return same

    def rows(self) -> tuple[Tensor, ...]:
        """The weights (rows, in) that are multiplied with the input in one product."""
        return (self.down.weight,)

    def hidden(self, product: Tensor, now: Pass) -> tuple[Tensor, float | Tensor]:
        """Of that product (N, ..., all rows), `down(x)` (N, ..., rank), and what each sample's is
        multiplied with, (B,) or a number.

        That is done at the width of the rank: activations are what training keeps.
        """
        return product, self.scaling * of_each(now)

    def sampled(self) -> "LowRank":
        """What is on where samples are generated."""
        return self

    def _chance(self, side: Side) -> float:
        return self.dropout if self.training and side == self.dropout_on else 0.0


class Bank(nn.Module):
    """Low-rank updates of one linear, one for each file of the data: in training each sample has
    that of its file, elsewhere all have that of `member`, or none.

    Only those that a pass has used get a gradient: an optimizer leaves the others as they are.
    """

    def __init__(self, linear: nn.Linear, build: Build, size: int, member: int | None) -> None:
        super().__init__()
        self.member = member
        for index in range(size):
            self.add_module(str(index), build(linear))

    def forward(self, x: Tensor, now: Pass) -> Tensor | None:  # (N, ..., in) -> (N, ..., out)
        which = now.files
        if which is None:
            which = () if self.member is None else (self.member,) * now.batch
        if not which:
            return None
        if len(set(which)) == 1:
            return self.of(which[0])(x, now)
        scales = spread(now.scale, torch.empty(now.batch), now.batch)
        scales = scales.split(1) if isinstance(scales, Tensor) else [scales] * now.batch
        each = zip(which, x.unflatten(0, (now.batch, -1)), scales, strict=True)
        return torch.cat([self.of(index)(rows, Pass(1, scale)) for index, rows, scale in each])

    def of(self, index: int) -> "LowRank":
        """The update of a file, numbered from 0."""
        return self.get_submodule(str(index))

    def sampled(self) -> "LowRank":
        """The one that is on where samples are generated. Raises JtError where none is."""
        if self.member is None:
            raise JtError(f"it is a bank of {len(self._modules)}, of which no `member` is chosen")
        return self.of(self.member)


def bank_member(instance: Any, attribute: Attribute, member: int | None) -> None:
    """Validates the option `member` beside the option `bank`."""
    if member is not None and instance.bank is None:
        raise ValueError("is of a bank, and `bank` is not given")
    if member is not None and not 0 <= member < instance.bank:
        raise ValueError(f"expected 0 to {instance.bank - 1}, as `bank` is {instance.bank}")


def banked(build: Build, size: int | None, member: int | None) -> Callable[[nn.Linear], nn.Module]:
    """What builds a bank, or a single update where there is none."""
    return build if size is None else lambda linear: Bank(linear, build, size, member)


def bank_problems(size: int | None, data: str, files: int) -> list[str]:
    """What is wrong with a bank of that `size`, or None, for `data` of so many files."""
    if size in (None, files):
        return []
    return [f"bank: {size} members, one for each file, do not fit {data}, which has {files}"]


def text_keys_and_values(targets: Collection[str], backbone: Backbone) -> set[str]:
    """The targets that see the text's tokens, and answer its keys or values. Raises JtError where
    none does."""
    found = backbone.targets("text_kv").keys() & set(targets)
    if not found:
        raise JtError(
            "detach_first_token: none of the targets answers keys or values of the text; add the"
            " role 'text_kv', or leave it out"
        )
    return found


def relative_size(update: Tensor, output: Tensor) -> Tensor:  # ()
    """|update| / |output|; of no output at all, what is nearest."""
    return update.float().norm() / output.float().norm().clamp_min(torch.finfo(torch.float32).tiny)


def spread(scale: float | Tensor, x: Tensor, batch: int) -> float | Tensor:  # -> (N, 1, ...)
    """The `scale` (B, 1, ...) of each sample, laid over an `x` (N, ...) whose first axis is the
    batch, or has each sample's frames or pixels folded into it with the sample outermost."""
    if not isinstance(scale, Tensor):
        return scale
    return laid_over(scale.reshape(batch, 1), x).to(x)


def laid_over(values: Tensor, x: Tensor) -> Tensor:  # (B, c) -> (N, 1, ..., c)
    """One row for each sample, laid over such an `x` (N, ..., c)."""
    assert len(x) % len(values) == 0, f"an axis of {len(x)} does not hold {len(values)} samples"
    each = values.repeat_interleave(len(x) // len(values), 0)
    return each.view(len(x), *[1] * (x.ndim - 2), -1)


def of_each(now: Pass) -> float | Tensor:  # (B,)
    """The scale of a pass's samples."""
    return now.scale.reshape(now.batch) if isinstance(now.scale, Tensor) else now.scale


def computed_in(x: Tensor) -> torch.dtype:
    """The type that a linear computes in."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype is not torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


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


def refuse_others(targets: Mapping[str, nn.Module]) -> None:
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
    parent, _, name = path.rpartition(".")
    descend(root, parent).add_module(name, module)


def descend(root: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path, made where there is none."""
    for name in path.split(".") if path else ():
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]
    return root
