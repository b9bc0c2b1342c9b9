"""The arithmetic of a step: device, precision, gradients, the update."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import cos, isfinite, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jtcore.checkpoint import load_optimizer_state, optimizer_state
from jtcore.errors import JtError
from jtcore.processes import ALONE, Processes
from jtcore.recipe import Stage
from jtcore.settings import EngineSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_SCALE = 1.0  # fp16 gradients that overflow even unscaled are not a matter of scale


class NonFiniteGradient(JtError):
    """The gradient is not finite; weights are as they were."""


class Engine:
    """One process on one device. Trained parameters are fp32, the denoiser runs in `dtype`.

    `jtcore.averaging` and `jtcore.zero` have those of several processes, each on its device. All
    processes call the same methods in the same order.
    """

    def __init__(self, settings: EngineSettings, processes: Processes = ALONE):
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.processes = processes
        self.device = own_device(settings, processes)
        self.dtype = DTYPES[settings.precision]
        self.gradient_checkpointing = settings.gradient_checkpointing
        self.memory = settings.memory
        self.compile, self.attention = settings.compile, settings.attention
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    @property
    def text_device(self) -> torch.device:
        """Where captions are embedded."""
        return torch.device("cpu") if self.memory.text_encoder == "host" else self.device

    def autocast(self) -> AbstractContextManager:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def prepare(
        self,
        optimizer: Optimizer,
        adapters: Mapping[str, nn.Module],
        denoiser: nn.Module,
        clip: float,
    ) -> None:
        """A stage begins, which trains all parameters of these `adapters` in `denoiser`."""

    def finish(self) -> None:
        """The stage has ended: every process has the whole weights."""

    def whole(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        """In which these can be read, and are as they are in one process."""
        return nullcontext()

    def state_dict(self, module: nn.Module) -> Mapping[str, Tensor]:
        """A module's tensors, whole: of several processes, on the first."""
        return module.state_dict()

    def clear(self, optimizer: Optimizer) -> None:
        """Forget all gradients."""
        optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, (); with fp16 it is scaled until `update`."""
        self.scaler.scale(loss).backward()

    def update(self, optimizer: Optimizer, clip: float) -> float:
        """Clip unless `clip` is 0, and step. Returns the gradient norm before clipping.

        Raises NonFiniteGradient, weights untouched. With fp16 an overflow is expected now and
        then: the step is skipped, the scale halved, and the norm returned is not finite.
        """
        parameters = parameters_of(optimizer)
        if all(p.grad is None for p in parameters):
            return 0.0
        self.scaler.unscale_(optimizer)
        total = gradient_norm(parameters)
        norm = float(total)  # the one time in a step that the device is waited for
        if not isfinite(norm) and not self._can_lower_scale():
            raise NonFiniteGradient(f"gradient norm is {norm}; weights left as they were")
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, total)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def finite(self, optimizer: Optimizer) -> bool:
        """Whether the gradients, before `update`, are finite on every process."""
        here = bool(torch.isfinite(gradient_norm(parameters_of(optimizer))))
        return not self.processes.any(not here)

    def optimizer_state(self, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Of all processes, as named tensors and plain values; on the first, if not on others."""
        return optimizer_state(optimizer)

    def load_optimizer_state(
        self, optimizer: Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> None:
        """Put back what `optimizer_state` took."""
        load_optimizer_state(optimizer, tensors, values)

    def _can_lower_scale(self) -> bool:
        return self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE


@contextmanager
def memory_told(work: str, cures: str) -> Iterator[None]:
    """Raises JtError where the device has not enough memory for some `work`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        what = str(error).splitlines()[0]
        raise JtError(f"not enough memory for {work}; {cures}. It said: {what}") from error


def choose_device(settings: EngineSettings) -> torch.device:
    """The device that the recipe names. Raises JtError where it is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise JtError("engine.device: 'cuda' is not available here; use 'auto' or 'cpu'")
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def own_device(settings: EngineSettings, processes: Processes) -> torch.device:
    """Of a process; of several on a machine, each has a GPU. Raises JtError where there is none."""
    device = choose_device(settings)
    if device.type == "cuda" and not processes.alone:
        if processes.local_rank >= (count := torch.cuda.device_count()):
            raise JtError(
                f"{processes.local_rank + 1} or more processes on a machine of {count} GPUs; start"
                " one for each"
            )
        device = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    return device


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, ()."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def learning_rate(stage: Stage, index: int) -> float:
    """Of step `index`: linear warm-up to `lr`, then constant or down to 0 at the stage's end."""
    if index < stage.warmup:
        return stage.lr * (index + 1) / stage.warmup
    done = (index - stage.warmup) / max(1, stage.steps - stage.warmup)
    factor = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + cos(pi * done)) / 2}
    return stage.lr * factor[stage.schedule]
