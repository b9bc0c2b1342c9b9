"""Where the weights are while a stage trains: on every process, or in parts."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import nn

from jtcore.adapter import Adapter, hooks_of

INSIDE = "jtcore_trained"  # what is trained, in the denoiser while it is divided
LEFT = (  # attributes that DeepSpeed leaves in modules, beside those that begin with ds_
    *("_external_params", "all_parameters", "_original_parameters"),
    *("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt"),
)


class WholeWeights:
    """Stages 1 and 2: every process has all of them."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self.root: nn.Module = nn.ModuleList(adapters.values())

    def begin(self, zero: Any) -> None:
        """DeepSpeed has taken over what is in `root`; `zero` is its package of that name."""

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager:
        """In which these can be read. All processes ask for the same."""
        return nullcontext()

    def let_go(self) -> None:
        """DeepSpeed is to step."""

    def hold(self) -> None:
        """It has."""

    def undo(self) -> None:
        """DeepSpeed has let go of them: they are plain again."""
        for parameter in self.root.parameters():
            parameter.data = parameter.data.clone()  # no more a part of something flat


class DividedWeights(WholeWeights):
    """Stage 3: each process has a part of each, of the denoiser's as well.

    DeepSpeed gathers what belongs to a module of the denoiser when that is called, in forward, in
    backward, and when gradient checkpointing runs it again. Adapters are not called by themselves,
    but by hooks of these modules, and not all alike on every process. So DeepSpeed meets none of
    their modules: what takes the place of a module's own weights, as large as they are, is gathered
    with these, and what else is trained, which is small, is held from one step to the next.
    """

    def __init__(self, adapters: Mapping[str, Adapter], denoiser: nn.Module) -> None:
        self.adapters, self.root = tuple(adapters.values()), denoiser
        self.replacements = [
            (denoiser.get_submodule(name), parameter)
            for adapter in self.adapters
            for name in adapter.replaced()
            for parameter in adapter.get_submodule(name).parameters(recurse=False)
        ]
        large = {parameter for _, parameter in self.replacements}
        trained = list(nn.ModuleList(self.adapters).parameters())
        self.small = [parameter for parameter in trained if parameter not in large]
        self.held = ExitStack()
        denoiser.add_module(INSIDE, nn.ParameterList(trained))
        self.hooks = set(hooks_of(denoiser))

    def begin(self, zero: Any) -> None:
        self.gathered = zero.GatheredParameters
        for module, parameter in self.replacements:
            zero.register_external_parameter(module, parameter)
        for module in self.root.modules():
            self._gather_first(module)
        self.hold()

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager:
        held = set(self.small)
        divided = [parameter for parameter in parameters if parameter not in held]
        return self.gathered(divided) if divided else nullcontext()

    def let_go(self) -> None:
        self.held.close()

    def hold(self) -> None:
        if self.small:
            self.held.enter_context(self.gathered(self.small))

    def undo(self) -> None:
        self.let_go()
        self.small = []
        for module in (*self.root.modules(), *nn.ModuleList(self.adapters).modules()):
            self._make_plain(module)
        for module, table, number in set(hooks_of(self.root)) - self.hooks:
            del getattr(module, table)[number]
        del self.root._modules[INSIDE]

    def _gather_first(self, module: nn.Module) -> None:
        """DeepSpeed's hooks before a module are to run before those of adapters, as those after it
        run after theirs."""
        table = module._forward_pre_hooks
        for number in list(table):
            if (module, "_forward_pre_hooks", number) in self.hooks:
                table.move_to_end(number)

    @torch.no_grad()
    def _make_plain(self, module: nn.Module) -> None:
        """As if DeepSpeed had never met a module: of its parameters some know parts of others."""
        own = {name: p for name, p in module._parameters.items() if p is not None}
        with self.gathered(list(own.values())) if own else nullcontext():
            whole = {name: nn.Parameter(p.data.clone(), p.requires_grad) for name, p in own.items()}
        module._parameters = {**module._parameters, **whole}
        for name in [name for name in vars(module) if name.startswith("ds_") or name in LEFT]:
            delattr(module, name)
