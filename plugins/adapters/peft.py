"""Methods of the peft library as adapters."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from attrs import Attribute, Factory, field, frozen
from attrs.validators import in_
from torch import Tensor, nn

from jtcore import JtError, hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone

from ._linear import place, refuse_others, relative_size, spread
from ._peft import NAME, OF_WEIGHTS, build_layers, option_problems

Method = Literal[
    "lora", "dora", "loha", "lokr", "oft", "vera", "ia3", "miss", "delora", "gralora", "road"
]


def _known(instance: Any, attribute: Attribute, options: Mapping[str, Any]) -> None:
    if instance.method not in get_args(Method):
        return  # told with the method
    try:
        problems = list(option_problems(instance.method, options))
    except JtError as error:
        problems = error.problems
    if problems:
        raise ValueError("; ".join(problems))


@frozen
class Peft:
    """A method of the peft library: DoRA, LoHa, LoKr, OFT, VeRA, IA3 and others

    y + scale * (layer(x) - linear(x)), where `layer` is peft's own of the `method`, built around
    the linear: at scale 1 what peft answers. `options` are those of peft's configuration, by its
    names, but for those that say what is targeted or change the linear itself. Files name tensors
    as peft does; VeRA's projections are not in them, as they follow from `projection_prng_key`.
    DoRA, OFT, IA3 and RoAd make their update of the linear's weights, and cannot be where a
    `weights` adapter replaces those. Needs `pip install 'jtcore[peft]'`.
    """

    targets: Targets
    method: Method = field(validator=in_(get_args(Method)))
    options: Mapping[str, Any] = field(default=Factory(dict), validator=_known)

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "PeftAdapter":
        targets = backbone.targets(self.targets)
        refuse_others(targets)
        return PeftAdapter(targets, build_layers(targets, self.method, self.options), self.method)


class PeftAdapter(Adapter):
    """A layer of peft beside each linear, under the linear's name."""

    def __init__(
        self, targets: Mapping[str, nn.Linear], layers: Mapping[str, nn.Module], method: str
    ) -> None:
        super().__init__()
        self.method, self.names = method, tuple(layers)
        self.relative: dict[str, Tensor] = {}  # |update| / |output| of the last pass, each ()
        for name, layer in layers.items():
            place(self, name, layer)
            targets[name].register_forward_hook(partial(self._add, name, layer))

    def _add(
        self,
        name: str,
        layer: nn.Module,
        linear: nn.Linear,
        inputs: tuple[Tensor, ...],
        output: Tensor,
    ) -> Tensor | None:  # (N, ..., out), or None to leave the output as it is
        if self.current is None:
            return None
        added = layer(inputs[0]) - layer.base_layer(inputs[0])
        if not self.training:
            self.relative[name] = relative_size(added.detach(), output.detach())
        return output + added * spread(self.current.scale, added, self.current.batch)

    def read(self) -> Collection[str]:
        return self.names if self.method in OF_WEIGHTS else ()

    def scalars(self) -> Mapping[str, Tensor]:
        """Outside training, the mean over layers of |update| / |output| in the last pass: ()."""
        if self.training or not self.relative:
            return {}
        return {"relative_update": torch.stack(list(self.relative.values())).mean()}

    def low_rank(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Of `method = "lora"`: `down` (rank, in), and `up` (out, rank) with the scaling in it."""
        if self.method != "lora":
            raise JtError(f"it is no low rank: peft's {self.method!r} does otherwise")
        layers = {n: one for n, one in self.named_modules() if hasattr(one, "base_layer")}
        return {
            name: (one.lora_A[NAME].weight, one.scaling[NAME] * one.lora_B[NAME].weight)
            for name, one in layers.items()
        }

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        """By the names that peft gives them in files."""
        found = super().state_dict(*arguments, **options)
        return {_saved(name): tensor for name, tensor in found.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], *rest: Any, **options: Any) -> Any:
        own = {_saved(name): name for name in super().state_dict()}
        named = {own.get(name, name): tensor for name, tensor in state.items()}
        return super().load_state_dict(named, *rest, **options)

    def to_empty(self, *, device: Any, recurse: bool = True) -> "PeftAdapter":
        """What no file holds is kept. Raises JtError where it is not known."""
        stored = super().state_dict()
        drawn = {name: buffer for name, buffer in self.named_buffers() if name not in stored}
        if any(tensor.is_meta for tensor in drawn.values()):
            raise JtError(
                f"peft's {self.method!r} has tensors that no file holds, and draws them where the"
                " denoiser's weights are; attach it before the pipeline is offloaded"
            )
        kept = {name: tensor.clone() for name, tensor in drawn.items()}
        super().to_empty(device=device, recurse=recurse)
        for name, tensor in kept.items():
            self.get_buffer(name).copy_(tensor)
        return self


def _saved(name: str) -> str:
    """What peft calls a tensor in a file."""
    kept = ".".join(part for part in name.split(".") if part != NAME)
    return kept.removesuffix(".weight") if "lora_magnitude_vector" in kept else kept


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"peft": Peft}
