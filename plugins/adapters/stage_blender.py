"""DualReal's controller: how much each of two adapters counts, at this depth and this time."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import gt, in_, optional
from torch import Tensor, nn
from torch.nn import functional

from jtcore import JtError, hookimpl
from jtcore.adapter import Adapter
from jtcore.mentions import adapter_names
from jtcore.near import did_you_mean
from jtcore.types import Backbone, Entrance

from ._bottleneck import linear, per_sample

Modulated = Literal["before", "after"]
NARROWER, WIDER = 4, 4  # than its features: the layer before the weights, the one that fuses


@frozen
class StageBlender:
    """DualReal's StageBlender: splits a budget of weight between two adapters, by group of blocks

    a = budget * sigmoid(f(max over tokens, time embedding)) is the first adapter's weight in each
    of `groups` groups of neighbouring blocks, budget - a the second's, for each sample and step
    (https://arxiv.org/abs/2505.02192); half each at first. `groups` must divide the number of
    blocks. `width` of its features is that of the denoiser's time embedding unless said, which in
    CogVideoX is the released 512. At scale 0 each adapter has its own `weight`, as where the
    controller is off; at others what is that far from there to a.
    `modulated` says where time acts on the pooled tokens q: "before" the network of two layers is
    as released, MLP(LN(q) (1 + scale) + shift) + gate q; "after" is the paper's equation 8,
    MLP(LN(q)) scale + shift, to which gate q is added as well.
    """

    between: tuple[str, str] = adapter_names(default=("identity", "motion"))
    groups: int = field(default=7, validator=gt(0))
    budget: float = field(default=0.2, validator=gt(0))
    width: int | None = field(default=None, validator=optional(gt(0)))
    modulated: Modulated = field(default="before", validator=in_(get_args(Modulated)))

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "Blender":
        blocks = len(backbone.blocks())
        if blocks % self.groups:
            legal = ", ".join(str(n) for n in range(1, blocks + 1) if blocks % n == 0)
            raise JtError(
                f"groups: {self.groups} does not divide the {blocks} blocks of the backbone;"
                f" take one of {legal}"
            )
        self._refuse_others(others)
        blender = Blender(backbone.entrance(), blocks // self.groups, self)
        for place, name in enumerate(self.between):
            others[name].share = partial(blender.share, place)
        return blender

    def _refuse_others(self, others: Mapping[str, Adapter]) -> None:
        if self.between[0] == self.between[1]:
            raise JtError(f"between: expected two adapters, got {self.between[0]!r} twice")
        for name in self.between:
            if name not in others:
                raise JtError(f"between: no adapter {name!r}; {did_you_mean(name, others)}")
            if not hasattr(others[name], "share"):
                raise JtError(
                    f"between: the adapter {name!r} takes no weight; expected a 'dualreal'"
                )
            if others[name].share is not None:
                raise JtError(f"between: another controller has the adapter {name!r} already")


class Blender(Adapter):
    """Hears what the denoiser embeds before its first block, and then knows the pass's weights.

    They carry gradient into every block. Recomputed blocks find the weights of the one forward.
    """

    def __init__(self, entrance: Entrance, per_group: int, options: StageBlender) -> None:
        super().__init__()
        self.options, self.per_group = options, per_group
        self.time: Tensor | None = None  # what was heard of the pass that begins
        self.pooled: list[Tensor] = []
        self.sources = len(entrance.tokens)
        self.weights: Tensor | None = None  # (B, groups), the first adapter's in this pass
        self.halves = 1  # of guidance, in this pass
        width = options.width or entrance.time_width
        device = next(entrance.time.parameters()).device
        self.modulation = linear(entrance.time_width, 3 * width, device)
        self.tokens = linear(entrance.width, width, device)
        self.norm = nn.LayerNorm(width, device=device)
        self.widen = linear(width, WIDER * width, device)
        self.narrow = linear(WIDER * width, width, device)
        self.hidden = linear(width, max(width // NARROWER, 1), device)
        self.head = linear(max(width // NARROWER, 1), options.groups, device, zero=True)
        entrance.time.register_forward_hook(self._hear_time)
        for module in entrance.tokens:
            module.register_forward_hook(self._hear_tokens)

    def share(self, place: int, depth: int, own: float) -> float | Tensor:  # (B,)
        """The weight of the first or second adapter in a block: its `own`, or what is decided."""
        if self.current is None:
            return own
        first, scale = self.weights[:, depth // self.per_group], per_sample(self.current.scale)
        decided = first if place == 0 else self.options.budget - first
        if not isinstance(scale, Tensor) and scale == 1:
            return decided
        return own + scale * (decided - own)

    def _hear_time(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self.current is not None:
            self.time = output
            self._decide()

    def _hear_tokens(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self.current is not None:
            self.pooled.append(pooled(output, self.current.batch))
            self._decide()

    def _decide(self) -> None:
        """Once all is heard, whatever the order."""
        if self.time is None or len(self.pooled) < self.sources:
            return
        with torch.autocast(self.time.device.type, enabled=False):
            tokens = torch.stack([each.float() for each in self.pooled]).amax(0)
            logits = self.head(functional.relu(self.features(tokens, self.time.float())))
            self.weights = self.options.budget * logits.sigmoid()
        self.time, self.pooled, self.halves = None, [], self.current.halves

    def features(self, tokens: Tensor, time: Tensor) -> Tensor:  # (B, D), (B, T) -> (B, hidden)
        shift, scale, gate = self.modulation(functional.silu(time)).chunk(3, 1)
        of_tokens = self.tokens(tokens)
        normed = self.norm(of_tokens)
        if self.options.modulated == "before":
            fused = self._fuse(normed * (1 + scale) + shift)
        else:
            fused = self._fuse(normed) * scale + shift
        return self.hidden(functional.relu(fused + gate * of_tokens))

    def _fuse(self, features: Tensor) -> Tensor:  # (B, D) -> (B, D)
        return self.narrow(functional.gelu(self.widen(features), approximate="tanh"))

    def scalars(self) -> Mapping[str, Tensor]:
        """The first adapter's weight in each group, as decided at scale 1: mean over the samples of
        the last pass, with guidance over those of its prompted half; each ()."""
        if self.weights is None:
            return {}
        means = self.weights.detach().chunk(self.halves)[-1].mean(0)
        return {f"{self.options.between[0]}_{group}": mean for group, mean in enumerate(means)}


def pooled(tokens: Tensor, batch: int) -> Tensor:  # (N, L, D) or (N, D, ...) -> (B, D)
    """The largest of each number over all tokens of a sample; frames may be folded into N."""
    each = tokens.amax(1) if tokens.ndim == 3 else tokens.flatten(2).amax(2)
    return each.unflatten(0, (batch, -1)).amax(1)


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"stage_blender": StageBlender}
