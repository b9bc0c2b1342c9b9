"""The engine of a run whose training is in DeepSpeed's hands."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jtcore.checkpoint import named_state, state_by_parameter
from jtcore.engine import Engine, NonFiniteGradient
from jtcore.processes import Processes
from jtcore.settings import DeepSpeed, EngineSettings

from .stage import Divided


class ZeroEngine(Engine):
    """Several processes, or one, by DeepSpeed."""

    def __init__(self, settings: EngineSettings, processes: Processes):
        super().__init__(settings, processes)
        self.options = settings.deepspeed or DeepSpeed()
        self._divided: Divided | None = None  # while a stage trains

    def autocast(self) -> AbstractContextManager:
        if self._divided and self.options.stage == 3 and self.dtype is not torch.float32:
            # each weight is rounded where it is met: all of them rounded would not be in parts
            return torch.autocast(self.device.type, self.dtype, cache_enabled=False)
        return super().autocast()

    def prepare(
        self,
        optimizer: Optimizer,
        adapters: Mapping[str, nn.Module],
        denoiser: nn.Module,
        clip: float,
    ) -> None:
        self._divided = Divided(self, self.options, optimizer, adapters, denoiser, clip)

    def finish(self) -> None:
        self._divided.undo()
        self._divided = None

    def whole(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        return self._divided.whole(list(parameters)) if self._divided else nullcontext()

    def state_dict(self, module: nn.Module) -> Mapping[str, Tensor]:
        """One tensor after another, on the host; nothing on the other processes."""
        state = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            with self.whole([tensor]):
                if self.processes.leads:
                    state[name] = tensor.detach().to("cpu", copy=True)
        return state

    def clear(self, optimizer: Optimizer) -> None:
        self._divided.clear()

    def backward(self, loss: Tensor) -> None:
        self._divided.backward(loss, self.scaler.get_scale() if self.scaler.is_enabled() else None)

    def update(self, optimizer: Optimizer, clip: float) -> float:
        norm = self._divided.step()
        if norm is None:
            return 0.0
        if not isfinite(norm) and not self._can_lower_scale():
            raise NonFiniteGradient(f"gradient norm is {norm}; weights left as they were")
        self._tell_scaler(isfinite(norm))
        return norm

    def finite(self, optimizer: Optimizer) -> bool:
        return self._divided.finite()

    def optimizer_state(self, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state = self._divided.state()
        return named_state(type(optimizer).__name__, state, optimizer.param_groups)

    def load_optimizer_state(
        self, optimizer: Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        self._divided.load_state(state_by_parameter(tensors, values))
        for now, then in zip(optimizer.param_groups, values["groups"], strict=True):
            now.update(then)

    def _tell_scaler(self, finite: bool) -> None:
        """The loss scale moves as that of one process does: by a gradient that is finite or not."""
        if self.scaler.is_enabled():
            verdict = nn.Parameter(torch.zeros(1, device=self.device))
            verdict.grad = torch.full_like(verdict, 0.0 if finite else float("inf"))
            nothing = torch.optim.SGD([verdict], lr=0.0)
            self.scaler.scale(verdict.detach())  # it has no scale before it is first asked for one
            self.scaler.unscale_(nothing)
            self.scaler.step(nothing)
            self.scaler.update()
