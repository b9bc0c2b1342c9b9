"""Full fine-tuning of the denoiser, or of a part of it, as an adapter."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from jtcore import JtError, hookimpl
from jtcore.adapter import Adapter
from jtcore.lowbit import LowBitLinear
from jtcore.targets import Targets
from jtcore.types import Backbone

from ._linear import descend


@frozen
class Weights:
    """Full fine-tuning: the weights of chosen modules, trained themselves

    Where it is on, modules compute with W + scale * (W' - W), which is exactly W' at scale 1. W' is
    a float32 copy of their weights, so that weight decay acts as in plain fine-tuning; the
    denoiser's own W stay as they are, for all that is computed with it off. `targets` are modules
    with all that is inside them; `but` leaves some of that out. AdamW takes 16 bytes for each
    number that is trained. No module can have two such adapters.
    """

    targets: Targets
    but: Targets = ()

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "WeightsAdapter":
        owners = _owners(backbone.targets(self.targets))
        left_out = _owners(backbone.targets(self.but)) if self.but else {}
        chosen = {name: module for name, module in owners.items() if name not in left_out}
        if not chosen:
            what = "leave nothing of the targets" if left_out else "have no weights"
            raise JtError(f"{'`but`' if left_out else '`targets`'}: they {what}")
        _refuse_low_bits(chosen)
        _refuse_shared(chosen, others)
        return WeightsAdapter(chosen)


class WeightsAdapter(Adapter):
    """A copy of each parameter of `owners`, by its name in the denoiser.

    Copies take the place of a module's own parameters before it runs, and hand it back when it has,
    also where it fails. So nobody else meets them, and gradient checkpointing, which runs the
    module again, does.
    """

    scales_samples = False

    def __init__(self, owners: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.owners = dict(owners)  # a dict, for the denoiser's modules are none of this one's
        self._relative: Tensor | None = None  # (), until there is more training
        for name, module in owners.items():
            replacement = _Replacement(self, _copy(module, descend(self, name)))
            module.register_forward_pre_hook(replacement.begin)
            module.register_forward_hook(replacement.end, always_call=True)

    def replaced(self) -> Collection[str]:
        return self.owners.keys()

    def train(self, mode: bool = True) -> "WeightsAdapter":
        self._relative = None
        return super().train(mode)

    @torch.no_grad()
    def scalars(self) -> Mapping[str, Tensor]:
        """Outside training, |W' - W| / |W| over all modules: ()."""
        if not self.training and self._relative is None:
            pairs = list(self._pairs())
            moved = sum((own - base).square().sum() for own, base in pairs)
            self._relative = (moved / sum(base.square().sum() for _, base in pairs)).sqrt()
        return {} if self.training else {"relative_update": self._relative}

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """W' and W."""
        for name, module in self.owners.items():
            for key, base in _parameters(module).items():
                own = self.get_submodule(name).get_parameter(key)
                yield own, base.to(own)


class _Replacement:
    """Puts copies in the place of a module's parameters for the time of one forward.

    The module reads an attribute before it looks among its parameters: those stay what they are, to
    whoever asks for them meanwhile.
    """

    def __init__(self, adapter: WeightsAdapter, copies: nn.Module) -> None:
        self.adapter = adapter
        self.copies = copies

    def begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        now = self.adapter.current
        if now is None or (scale := _one(now.scale)) == 0:
            return
        own = _parameters(module)
        if any(weight.is_meta for weight in own.values()):
            raise JtError(
                f"the weights of {type(module).__name__} are elsewhere until it runs, as after"
                " enable_sequential_cpu_offload(), so that none can take their place; take"
                " enable_model_cpu_offload()"
            )
        for name, base in own.items():
            mixed = _between(base, self.copies.get_parameter(name), scale)
            vars(module)[name] = mixed if _casts(module, base) else mixed.to(base.dtype)

    def end(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for name in module._parameters:
            vars(module).pop(name, None)


def _between(base: Tensor, trained: Tensor, scale: float) -> Tensor:  # all of one shape
    """The base at 0 and the trained at 1, float32."""
    if not torch.is_grad_enabled():
        trained = trained.detach()  # torch has other kernels for what could have a gradient
    return trained if scale == 1 else base.float() + scale * (trained - base.float())


def _casts(module: nn.Module, base: Tensor) -> bool:
    """Whether the module takes float32 for what it needs: as autocast does, but for this norm."""
    return torch.is_autocast_enabled(base.device.type) and not isinstance(module, nn.RMSNorm)


def _one(scale: float | Tensor) -> float:  # of (B, 1, ...)
    """The scale that all samples have. Raises JtError where they differ."""
    if not isinstance(scale, Tensor):
        return scale
    values = scale.detach().unique().tolist()
    if len(values) > 1 or scale.requires_grad:
        raise JtError(
            "a `weights` adapter computes with one set of weights in a pass, so that its scale must"
            f" be one number for all samples; found {', '.join(f'{v:g}' for v in values)}"
        )
    return values[0]


def _owners(targets: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules among `targets` and inside them that have parameters of their own."""
    found = {}
    for name, target in targets.items():
        for inner, module in target.named_modules(prefix=name):
            if _parameters(module):
                found[inner] = module
    return found


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Of the module itself."""
    return {name: weight for name, weight in module._parameters.items() if weight is not None}


def _copy(module: nn.Module, into: nn.Module) -> nn.Module:
    for name, weight in _parameters(module).items():
        copy = weight.detach().to(torch.float32, copy=True)
        into.register_parameter(name, nn.Parameter(copy))
    return into


def _refuse_low_bits(owners: Mapping[str, nn.Module]) -> None:
    packed = [path for path, module in owners.items() if isinstance(module, LowBitLinear)]
    if packed:
        raise JtError(
            f"`targets`: {len(packed)} layers, the first {packed[0]!r}, are stored in few bits"
            " (engine.memory.base), and have no weights to begin from; choose others, leave them"
            " out with `but`, or take the option away"
        )


def _refuse_shared(owners: Mapping[str, nn.Module], others: Mapping[str, Adapter]) -> None:
    for name, other in others.items():
        if not isinstance(other, WeightsAdapter):
            continue
        if shared := [path for path in owners if path in other.owners]:
            raise JtError(
                f"{len(shared)} modules, the first {shared[0]!r}, have their weights replaced by"
                f" {name!r} already; choose `targets` that do not overlap, or leave them out"
                " with `but`"
            )


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"weights": Weights}
