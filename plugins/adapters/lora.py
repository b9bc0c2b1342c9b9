"""Plain LoRA."""

from collections.abc import Mapping
from typing import get_args

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt, optional

from jtcore import hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone

from ._linear import Init, LinearAdapter, LowRank, Side


@frozen
class LoRA:
    """LoRA: a trained low-rank update beside each linear layer

    y = W x + b + scale * U D x (https://arxiv.org/abs/2106.09685). `scale` is alpha / rank as in
    peft, or 1 where alpha is not given, as in MotionDirector and JointTuner. The other defaults are
    theirs too: D ~ N(0, 1/rank^2), dropout on what U answers. peft's own are `init = "kaiming"`,
    `dropout_on = "input"`, `dropout = 0.0` and an alpha.
    """

    targets: Targets
    rank: int = field(default=32, validator=gt(0))
    alpha: float | None = field(default=None, validator=optional(gt(0)))
    init: Init = field(default="normal", validator=in_(get_args(Init)))
    dropout: float = field(default=0.1, validator=[ge(0), lt(1)])
    dropout_on: Side = field(default="output", validator=in_(get_args(Side)))

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> LinearAdapter:
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        return LinearAdapter(
            backbone.targets(self.targets),
            lambda linear: LowRank(
                linear, self.rank, self.init, scale, self.dropout, self.dropout_on
            ),
        )


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"lora": LoRA}
