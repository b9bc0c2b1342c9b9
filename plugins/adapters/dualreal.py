"""DualReal's adapters: bottlenecks beside attention and feed-forward, inside the gates."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, optional
from torch import Tensor, nn

from jtcore import hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone, Site

from ._bottleneck import Activation, Bottleneck, Condition, per_sample
from ._linear import place, relative_size, spread

Added = Literal["inside", "block"]
Output = Tensor | tuple[Tensor, ...]  # a stream, or the video's and the text's
Share = Callable[[int, float], float | Tensor]  # depth of a block, own weight -> weight, (B,)


@frozen
class DualReal:
    """DualReal's adapter: a bottleneck beside attention and feed-forward, inside their gates

    module(h) + weight * A(h), A(h) = U GELU(D (h + V y + c) + b) + b' + h
    (https://arxiv.org/abs/2505.02192), as released. Since U and b' are 0 at first, A(h) is h there,
    and the answer is not the bare denoiser's. `weight` is that of an adapter without a controller;
    a "stage_blender" that names it takes its place. `reference_width` is how many numbers of an
    image embedding y it reads; a pass without a picture has neither V y nor c.
    The paper's equations are `skip = false`, `activation = "after"`, GELU(U D h),
    `condition = "multiply"`, h * (V y + c), and `added = "block"`: one adapter a block that has any
    of the targets, which reads what enters the block, and adds to what leaves it.
    """

    targets: Targets = "visual"
    width: int = field(default=64, validator=gt(0))
    reference_width: int | None = field(default=None, validator=optional(gt(0)))
    weight: float = field(default=0.1, validator=ge(0))
    skip: bool = True
    activation: Activation = field(default="between", validator=in_(get_args(Activation)))
    condition: Condition = field(default="add", validator=in_(get_args(Condition)))
    added: Added = field(default="inside", validator=in_(get_args(Added)))

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "WeightedAdapter":
        return WeightedAdapter(backbone.sites(self.targets), self)


class WeightedAdapter(Adapter):
    """A bottleneck for each site, stored under the path of the module or block that it is beside.

    `share` is set by a controller; what it answers carries that controller's gradient.
    """

    share: Share | None = None

    def __init__(self, sites: Mapping[str, Site], options: DualReal) -> None:
        super().__init__()
        self.options = options
        self.varies = options.reference_width is not None  # a pass may have no picture
        self.relative: dict[str, Tensor] = {}  # (), |update| / |output| of the last pass
        for name, site in (_blocks(sites) if options.added == "block" else sites).items():
            device = next(site.module.parameters()).device
            network = Bottleneck(
                site.width,
                options.width,
                options.reference_width,
                device,
                options.activation,
                options.condition,
            )
            place(self, name, network)
            module = site.block if options.added == "block" else site.module
            hook = partial(self._add, name, network, site.depth)
            module.register_forward_hook(hook, with_kwargs=True)

    def _add(
        self,
        name: str,
        network: Bottleneck,
        depth: int,
        module: nn.Module,
        inputs: tuple[Any, ...],
        named: Mapping[str, Any],
        output: Output,
    ) -> Output | None:
        """Of two streams each has its update; None leaves the output as it is."""
        if self.current is None:
            return None
        outputs = (output,) if isinstance(output, Tensor) else output
        read = _streams(inputs, named, len(outputs))
        updates = [self._update(network, depth, x) for x in read]
        if not self.training:
            self.relative[name] = relative_size(updates[0].detach(), outputs[0].detach())
        added = tuple(each + update for each, update in zip(outputs, updates, strict=True))
        return added[0] if isinstance(output, Tensor) else added

    def _update(self, network: Bottleneck, depth: int, x: Tensor) -> Tensor:  # (N, ..., c), both
        answer = network(x, self.current) + x if self.options.skip else network(x, self.current)
        return answer * spread(self.weight(depth), x, self.current.batch)

    def weight(self, depth: int) -> float | Tensor:  # (B,)
        """Of the adapter in a block, in the pass that runs: the controller's, if one is on."""
        own = self.options.weight
        weight = self.share(depth, own) if self.share else own
        return weight * per_sample(self.current.scale)

    def scalars(self) -> Mapping[str, Tensor]:
        """Outside training, the mean over sites of |update| / |output| in the last pass: ()."""
        if self.training or not self.relative:
            return {}
        return {"relative_update": torch.stack(list(self.relative.values())).mean()}


def _blocks(sites: Mapping[str, Site]) -> dict[str, Site]:
    """One site of each block, by the block's name."""
    found: dict[str, Site] = {}
    for name, site in sites.items():
        found.setdefault(name.rpartition(".")[0], site)
    return found


def _streams(inputs: tuple[Any, ...], named: Mapping[str, Any], count: int) -> tuple[Tensor, ...]:
    """What a module or block reads of the streams that it answers, the video's first."""
    names = ("hidden_states", "encoder_hidden_states")[len(inputs) : count]
    return (*inputs[:count], *(named[name] for name in names))


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"dualreal": DualReal}
