"""Plain LoRA."""

from collections.abc import Mapping
from typing import get_args

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt, optional
from torch import nn

from jtcore import hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone

from ._linear import (
    Init,
    LinearAdapter,
    LowRank,
    Side,
    bank_member,
    bank_problems,
    banked,
    text_keys_and_values,
)


@frozen
class LoRA:
    """LoRA: a trained low-rank update beside each linear layer

    y = W x + b + scale * U D x (https://arxiv.org/abs/2106.09685). `scale` is alpha / rank as in
    peft, or 1 where alpha is not given, as in MotionDirector and JointTuner. The other defaults are
    theirs too: D ~ N(0, 1/rank^2), dropout on what U answers. peft's own are `init = "kaiming"`,
    `dropout_on = "input"`, `dropout = 0.0` and an alpha.

    `bank` is how many LoRAs each layer has, one for each file of the data: in training a sample has
    that of its file, as MotionDirector's spatial ones. Where it samples or is validated, only
    `member` is on, numbered from 0 in the order of the files' names, or none of them.
    `detach_first_token` keeps gradients from the first token of the keys and values of the text,
    which in CLIP is the same in all prompts, as in Custom Diffusion.
    """

    targets: Targets
    rank: int = field(default=32, validator=gt(0))
    alpha: float | None = field(default=None, validator=optional(gt(0)))
    init: Init = field(default="normal", validator=in_(get_args(Init)))
    dropout: float = field(default=0.1, validator=[ge(0), lt(1)])
    dropout_on: Side = field(default="output", validator=in_(get_args(Side)))
    bank: int | None = field(default=None, validator=optional(ge(1)))
    member: int | None = field(default=None, validator=bank_member)
    detach_first_token: bool = False

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> LinearAdapter:
        targets = backbone.targets(self.targets)
        detached = text_keys_and_values(targets, backbone) if self.detach_first_token else ()
        return LinearAdapter(targets, banked(self._build, self.bank, self.member), detached)

    def files_problems(self, data: str, files: int) -> list[str]:
        return bank_problems(self.bank, data, files)

    def _build(self, linear: nn.Linear) -> LowRank:
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        return LowRank(linear, self.rank, self.init, scale, self.dropout, self.dropout_on)


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"lora": LoRA}
