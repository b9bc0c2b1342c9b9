"""JointTuner's adapter: LoRA whose strength each layer reads off its own input."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt, optional
from torch import Tensor, nn

from jtcore import JtError, hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone, Pass

from ._linear import (
    Init,
    LinearAdapter,
    LowRank,
    bank_member,
    bank_problems,
    banked,
    draw,
    matrix,
    of_each,
)

Over = Literal["sample", "batch"]


@frozen
class GLoRA:
    """Gated LoRA: LoRA with an input-dependent strength for each layer and sample

    y = W x + b + g * U D x with g = mean over tokens of sigmoid(w . x)
    (https://arxiv.org/abs/2503.23951). At first U is 0 and g about 1/2, so that LoRA of the same
    learning rate is the stronger one until the gates move. `gate_over = "sample"` averages over one
    sample's tokens. "batch" averages over the whole batch as well, as the released code does: a
    sample then depends on its neighbours: each half of classifier-free guidance on the other, and
    videos that are sampled at once (`sample.batch`) on each other.
    `gate_init` is "normal" in the released code for CogVideoX, "kaiming" in that for UNets.
    `bank` and `member` are those of `lora`, with gates over samples alone. peft's GLORA is another
    method, Generalized LoRA.
    """

    targets: Targets
    rank: int = field(default=32, validator=gt(0))
    gate_over: Over = field(default="sample", validator=in_(get_args(Over)))
    gate_init: Init = field(default="normal", validator=in_(get_args(Init)))
    dropout: float = field(default=0.1, validator=[ge(0), lt(1)])
    bank: int | None = field(default=None, validator=optional(ge(1)))
    member: int | None = field(default=None, validator=bank_member)

    def __attrs_post_init__(self) -> None:
        if self.gate_over == "batch" and self.bank is not None:
            raise ValueError(
                'expected gate_over = "sample" with a bank: samples that have LoRAs of their own'
                " have no gate in common"
            )

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "GatedAdapter":
        return GatedAdapter(
            backbone.targets(self.targets),
            banked(lambda linear: GatedLowRank(linear, self), self.bank, self.member),
        )

    def files_problems(self, data: str, files: int) -> list[str]:
        return bank_problems(self.bank, data, files)


class GatedAdapter(LinearAdapter):
    def scalars(self) -> Mapping[str, Tensor]:
        """Also mean and extremes over layers of the last pass's gates; each ()."""
        layers = [layer for layer in self.modules() if isinstance(layer, GatedLowRank)]
        gates = [layer.last for layer in layers if layer.last is not None]
        if not gates:
            return super().scalars()
        low, high = torch.stack(gates).aminmax()
        told = {"gate": torch.stack(gates).mean(), "gate_min": low, "gate_max": high}
        return {**super().scalars(), **told}

    def factors(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Without the gates."""
        return super().low_rank()

    def strengths(self) -> Mapping[str, Tensor]:
        """The gates, means over the pass."""
        found = {name: update.sampled() for name, update in self.updates.items()}
        return {name: one.last for name, one in found.items() if one.last is not None}

    def low_rank(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        raise JtError(
            "it is a gated LoRA: each layer's strength is read off that layer's input, which no"
            " fixed pair of matrices can do, and without the gates it would be another adapter"
        )


class GatedLowRank(LowRank):
    def __init__(self, linear: nn.Linear, options: GLoRA) -> None:
        super().__init__(linear, options.rank, dropout=options.dropout)
        device, width = next(linear.parameters()).device, linear.in_features
        self.gate = matrix(draw(options.gate_init, 1, width, options.rank, device))
        self.over = options.gate_over
        self.last: Tensor | None = None  # (), the mean gate; a recomputed forward finds the same

    def rows(self) -> tuple[Tensor, ...]:
        """The gate is one row more."""
        return self.down.weight, self.gate.weight

    def hidden(self, product: Tensor, now: Pass) -> tuple[Tensor, Tensor]:
        """`down(x)` and the gates' mean, (B,), out of one product."""
        rank = len(self.down.weight)
        hidden, logits, _ = product.split([rank, 1, product.shape[-1] - rank - 1], -1)
        samples = 1 if self.over == "batch" else now.batch
        gate = logits.float().sigmoid().reshape(samples, -1).mean(1).expand(now.batch)
        self.last = gate.detach().mean()
        return hidden, gate * of_each(now)


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"glora": GLoRA}
