"""A stage of training in DeepSpeed's hands.

Three things make the weights those of one process:

* each parameter is a group of its own, so that one that no branch has used in a step is left out of
  it, as an optimizer leaves out what has no gradient, and so that the parts of an optimizer's state
  can be put together to what one process has: that is what checkpoints hold;
* gradients of all passes of a step add up on each process and are reduced once, after the last of
  them, with zeros for what this process has not used and another has. But where more numbers are
  trained than the `bucket` holds, they are reduced while backward runs;
* the loss scale of fp16 is our own, and DeepSpeed is told of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jtcore.adapter import Adapter
from jtcore.engine import Engine, parameters_of
from jtcore.settings import DeepSpeed

from .library import generated, import_deepspeed, quiet
from .weights import DividedWeights, WholeWeights

USED = "used"  # an option of a parameter's group: whether the step is to change it


class Divided:
    """Of one stage: its optimizer, its gradients and its weights."""

    def __init__(
        self,
        engine: Engine,
        options: DeepSpeed,
        optimizer: Optimizer,
        adapters: Mapping[str, Adapter],
        denoiser: nn.Module,
        clip: float,
    ):
        self.processes, self.options = engine.processes, options
        self.optimizer = optimizer
        self.parameters = parameters_of(optimizer)
        self.shapes = [parameter.shape for parameter in self.parameters]
        numbers = sum(shape.numel() for shape in self.shapes)
        # whether gradients are reduced while backward runs
        self.at_once = options.stage > 1 and numbers > options.bucket
        if options.stage == 3:
            self.weights = DividedWeights(adapters, denoiser)
        else:
            self.weights = WholeWeights(adapters)
        self._let_each_be_left_out()
        deepspeed = import_deepspeed(engine.device, self.processes)
        config = generated(options, clip) | {"managed_gradient_accumulation": not self.at_once}
        with quiet():
            self.engine, self.zero, *_ = deepspeed.initialize(
                model=self.weights.root,
                optimizer=optimizer,
                config=config,
                dist_init_required=False,
            )
        self.weights.begin(deepspeed.zero)
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

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager:
        """In which these can be read."""
        return self.weights.whole(parameters)

    def clear(self) -> None:
        for parameter in self.parameters:  # DeepSpeed would ask for a stream, also on a CPU
            parameter.grad = None
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
        if not any(map(any, used)):
            return None
        for index, (by, group) in enumerate(zip(used, self.optimizer.param_groups, strict=True)):
            group[USED] = any(by)
            if not all(by) and not self.at_once:
                self._give_zeros(index)
        self.pending.close()
        self.weights.let_go()
        with quiet():
            self.engine.step()
        self.weights.hold()
        return float(self.zero._global_grad_norm)

    def finite(self) -> bool:
        here = all(p.grad is None or bool(p.grad.isfinite().all()) for p in self.parameters)
        return not self.processes.any(not here)

    def _used(self) -> list[tuple[bool, ...]]:
        """Of each parameter, by which processes."""
        here = [index in self.seen for index in range(len(self.parameters))]
        return list(zip(*self.processes.gather(here), strict=True))

    def _give_zeros(self, index: int) -> None:
        """To a parameter that not every process has used, where this one has not."""
        parameter = self.parameters[index]
        with self.whole([parameter]):
            if index not in self.seen:
                parameter.grad = torch.zeros_like(parameter)

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
        self.weights.undo()
        with quiet():
            self.engine.destroy()

    def _let_each_be_left_out(self) -> None:
        optimizer = self.optimizer
        optimizer.param_groups[:] = [
            {**group, "params": [parameter], USED: True}
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        optimizer.register_step_pre_hook(_set_aside)
        optimizer.register_step_post_hook(_put_back)


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
