"""DeepSpeed's ZeRO: what is trained is divided among processes.

DeepSpeed divides, reduces and steps; branches, precision, loss scale and checkpoints are as with
one process. Trained parameters are float32 and DeepSpeed is told of no other precision; autocast is
ours. Three things make the weights those of one process:

* each parameter is a group of its own, so that one that no branch has used in a step is left out of
  it, as an optimizer leaves out what has no gradient, and so that the parts of an optimizer's state
  can be put together to what one process has: that is what checkpoints hold;
* gradients of all passes of a step add up on each process and are reduced once, after the last of
  them, with zeros for what this process has not used and another has. But where more numbers are
  trained than the `bucket` holds, they are reduced while backward runs;
* the loss scale of fp16 is our own, and DeepSpeed is told of it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stdout,
)
from io import StringIO
from logging import ERROR, getLogger
from math import isfinite
from typing import Any
from warnings import catch_warnings, filterwarnings, simplefilter

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from jtcore.adapter import hooks_of
from jtcore.checkpoint import named_state, state_by_parameter
from jtcore.engine import Engine, NonFiniteGradient, parameters_of
from jtcore.processes import Processes
from jtcore.settings import DeepSpeed, EngineSettings
from jtcore.tables import overlay

INSIDE = "jtcore_adapters"  # what they are called in the denoiser while it is divided
LEFT = (  # attributes that DeepSpeed leaves in modules, beside those that begin with ds_
    *("_external_params", "all_parameters", "_original_parameters"),
    *("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt"),
)
USED = "used"  # an option of a parameter's group: whether the step is to change it


class ZeroEngine(Engine):
    """Several processes, or one, by DeepSpeed."""

    def __init__(self, settings: EngineSettings, processes: Processes):
        super().__init__(settings, processes)
        self.options = settings.deepspeed or DeepSpeed()
        self._divided: _Divided | None = None  # while a stage trains

    def prepare(
        self,
        optimizer: Optimizer,
        adapters: Mapping[str, nn.Module],
        denoiser: nn.Module,
        clip: float,
    ) -> None:
        self._divided = _Divided(self, optimizer, adapters, denoiser, clip)

    def finish(self) -> None:
        self._divided.undo()
        self._divided = None

    def whole(self, parameters: Iterable[nn.Parameter]) -> AbstractContextManager:
        return self._divided.gathered(list(parameters)) if self._divided else nullcontext()

    def state_dict(self, module: nn.Module) -> Mapping[str, Tensor]:
        """One parameter after another, on the host."""
        state = {name: buffer.cpu() for name, buffer in module.named_buffers()}
        for name, parameter in module.named_parameters():
            with self.whole([parameter]):
                if self.processes.leads:
                    state[name] = parameter.detach().to("cpu", copy=True)
        return {name: state[name] for name in module.state_dict() if name in state}

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


class _Divided:
    """A stage in DeepSpeed's hands."""

    def __init__(
        self,
        engine: ZeroEngine,
        optimizer: Optimizer,
        adapters: Mapping[str, nn.Module],
        denoiser: nn.Module,
        clip: float,
    ):
        self.processes, self.options = engine.processes, engine.options
        self.optimizer = optimizer
        self.parameters = parameters_of(optimizer)
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.root = nn.ModuleList(adapters.values())
        if self.options.stage == 3:  # weights are gathered where they are met in the denoiser
            denoiser.add_module(INSIDE, self.root)
            self.root = denoiser
        self.hooks = set(hooks_of(self.root))
        self.deepspeed = import_deepspeed(engine.device, self.processes)
        optimizer.param_groups[:] = [
            {**group, "params": [parameter], USED: True}
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        optimizer.register_step_pre_hook(_set_aside)
        optimizer.register_step_post_hook(_put_back)
        numbers = sum(shape.numel() for shape in self.shapes)
        # whether gradients are reduced while backward runs
        self.at_once = self.options.stage > 1 and numbers > self.options.bucket
        config = generated(self.options, clip) | {"managed_gradient_accumulation": not self.at_once}
        with quiet():
            self.engine, self.zero, *_ = self.deepspeed.initialize(
                model=self.root, optimizer=optimizer, config=config, dist_init_required=False
            )
        self.seen: set[int] = set()  # of parameters that have a gradient on this process
        self.watching = [
            parameter.register_post_accumulate_grad_hook(lambda p, i=i: self.seen.add(i))
            for i, parameter in enumerate(self.parameters)
        ]
        self.pending = ExitStack()  # the reduction that waits for the end of the step

    @property
    def flat(self) -> Sequence[Tensor]:
        """This process's part of each parameter, as the optimizer has it."""
        if self.options.stage == 3:
            return self.zero.fp32_partitioned_groups_flat
        return self.zero.single_partition_of_fp32_groups

    def clear(self) -> None:
        self.zero.zero_grad(set_to_none=True)
        self.pending.close()  # with no gradient left to reduce
        self.zero.zero_grad(set_to_none=True)
        if self.at_once and self.options.stage == 3:  # where DeepSpeed adds to what it had before
            parts = self.zero._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
            for part in parts.values():
                part.zero_()
        self.seen.clear()

    def backward(self, loss: Tensor, scale: float | None) -> None:
        if self.at_once:
            self.zero.clear_backward_seen_flag()  # as DeepSpeed does when its module runs
        elif not self.seen:
            self.pending.enter_context(self.engine.coalesce_grad_reduction())
        if scale is not None:
            self.zero.override_loss_scale(scale)
        self.engine.backward(loss)

    def step(self) -> float | None:
        """The gradient's norm, not finite where weights are left as they were; None where no pass
        has given any gradient."""
        used = self._used()
        if not any(used):
            return None
        for index, (parameter, group) in enumerate(
            zip(self.parameters, self.optimizer.param_groups, strict=True)
        ):
            group[USED] = used[index]
            if index not in self.seen and not self.at_once:
                self._give_zeros(parameter)
        self.pending.close()
        with quiet():
            self.engine.step()
        return float(self.zero._global_grad_norm)

    def finite(self) -> bool:
        here = all(p.grad is None or bool(p.grad.isfinite().all()) for p in self.parameters)
        return not self.processes.any(not here)

    def _used(self) -> list[bool]:
        here = [index in self.seen for index in range(len(self.parameters))]
        return [any(each) for each in zip(*self.processes.gather(here), strict=True)]

    def _give_zeros(self, parameter: nn.Parameter) -> None:
        with self.gathered([parameter]):
            parameter.grad = torch.zeros_like(parameter)

    def gathered(self, parameters: list[nn.Parameter]) -> AbstractContextManager:
        if self.options.stage < 3:
            return nullcontext()
        return self.deepspeed.zero.GatheredParameters(parameters)

    def state(self) -> dict[int, dict[str, Any]]:
        """The optimizer's, by parameter, put together on the first process; none on the others."""
        found: dict[int, dict[str, Any]] = {}
        for index, flat in enumerate(self.flat):
            for name, value in self.optimizer.state.get(flat, {}).items():
                if isinstance(value, Tensor) and value.shape == flat.shape:
                    value = self._whole_of(value, self.shapes[index])
                found.setdefault(index, {})[name] = value
        return found if self.processes.leads else {}

    def _whole_of(self, part: Tensor, shape: torch.Size) -> Tensor | None:
        joined = self.processes.joined(part.cpu())
        return None if joined is None else joined[: shape.numel()].reshape(shape)

    def load_state(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        for index, entries in state.items():
            flat, shape = self.flat[index], self.shapes[index]
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape == shape and shape:
                    value = self._part_of(value, flat)
                self.optimizer.state[flat][name] = value

    def _part_of(self, value: Tensor, flat: Tensor) -> Tensor:
        size = flat.numel()
        whole = nn.functional.pad(value.flatten(), (0, size * self.processes.size - value.numel()))
        return whole.split(size)[self.processes.rank].clone().to(flat.device)

    def undo(self) -> None:
        """Every process has whole, plain weights again."""
        for handle in self.watching:
            handle.remove()
        if self.options.stage == 3:
            for module in self.root.modules():
                self._make_plain(module)
        else:
            for parameter in self.parameters:
                parameter.data = parameter.data.clone()  # no more a part of something flat
        with quiet():
            self.engine.destroy()
        for module, table, number in set(hooks_of(self.root)) - self.hooks:
            del getattr(module, table)[number]
        if self.options.stage == 3:
            del self.root._modules[INSIDE]

    @torch.no_grad()
    def _make_plain(self, module: nn.Module) -> None:
        """As if DeepSpeed had never met a module: of its parameters some know parts of others."""
        own = {name: p for name, p in module._parameters.items() if p is not None}
        with self.gathered(list(own.values())):
            whole = {name: nn.Parameter(p.data.clone(), p.requires_grad) for name, p in own.items()}
        module._parameters = {**module._parameters, **whole}
        for name in [name for name in vars(module) if name.startswith("ds_") or name in LEFT]:
            delattr(module, name)


@contextmanager
def quiet() -> Iterator[None]:
    """What DeepSpeed prints and warns of is for its authors; its errors are raised."""
    getLogger("DeepSpeed").setLevel(ERROR)
    with catch_warnings(), redirect_stdout(StringIO()):
        simplefilter("ignore")
        yield


def import_deepspeed(device: torch.device, processes: Processes) -> Any:
    """The package, which meets the others by torch's process group and builds nothing."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    with quiet():
        import deepspeed

        if not distributed.is_initialized():
            distributed.init_process_group(store=distributed.HashStore(), rank=0, world_size=1)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo will do
        deepspeed.init_distributed()
    filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def generated(options: DeepSpeed, clip: float) -> dict[str, Any]:
    """DeepSpeed's JSON of a stage, with the raw table laid over it."""
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero: dict[str, Any] = {"stage": options.stage, "reduce_bucket_size": options.bucket}
    if options.offload_optimizer:
        zero["offload_optimizer"] = host
    if options.offload_parameters:
        zero["offload_param"] = host
    made = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    return overlay(made, options.raw)


def _set_aside(optimizer: Optimizer, arguments: Any, options: Any) -> None:
    """Before its step: what is not used in it has no gradient."""
    for group in optimizer.param_groups:
        if not group[USED]:
            group["aside"] = [parameter.grad for parameter in group["params"]]
            for parameter in group["params"]:
                parameter.grad = None


def _put_back(optimizer: Optimizer, arguments: Any, options: Any) -> None:
    """After its step: DeepSpeed writes the next gradients where these are."""
    for group in optimizer.param_groups:
        for parameter, gradient in zip(group["params"], group.pop("aside", ()), strict=False):
            parameter.grad = gradient
