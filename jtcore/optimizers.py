"""Optimizers whose state is elsewhere than in 32 bits beside the weights."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.adamw import adamw

from jtcore.copying import Copies, page_locked
from jtcore.errors import JtError
from jtcore.lowbit import MISSING, load_bitsandbytes

if TYPE_CHECKING:
    from jtcore.recipe import Stage

Kept = Literal["8bit", "host"]
Options = tuple[float, tuple[float, float], float, float]  # lr, betas, eps, weight decay

OPTION = 'engine.memory.optimizer = "host"'
SMALL = 4096  # numbers in a tensor: what has fewer keeps a state of 32 bits
BOOKS = {"qmap1": "dynamic", "qmap2": "udynamic"}  # in the state, and in the optimizer


def make_optimizer(
    stage: "Stage", parameters: Iterable[nn.Parameter], kept: Kept | None
) -> Optimizer:
    """AdamW as a stage says, with its state as `kept` says."""
    options = (stage.lr, stage.betas, stage.eps, stage.weight_decay)
    return _make(list(parameters), options, kept)


def _make(parameters: list[nn.Parameter], options: Options, kept: Kept | None) -> Optimizer:
    return {None: AdamW, "8bit": adamw_8bit, "host": HostAdamW}[kept](parameters, *options)


def optimizer_problem(kept: Kept, device: torch.device) -> str | None:
    """Why a state cannot be kept so on a device, and what to do: a small weight is moved."""
    weight = nn.Parameter(torch.zeros(SMALL, device=device))
    weight.grad = torch.zeros_like(weight)
    try:
        _make([weight], (1e-3, (0.9, 0.999), 1e-8, 0.0), kept).step()
    except ImportError:
        return MISSING.format(kept)
    except RuntimeError as error:  # an operator that is not there for the device
        return f"{kept!r} does not work on {device.type}: {str(error).splitlines()[0]}"
    return None


def refuse_other_optimizers(optimizer: Optimizer, kept: Kept | None, place: str) -> None:
    """Raises JtError where a plugin has made one of another kind than the recipe asks for."""
    if kept is not None and getattr(optimizer, "kept", None) != kept:
        raise JtError(
            f"engine.memory.optimizer: {kept!r} is asked for, and a plugin makes the optimizer of"
            f" {place}, a {type(optimizer).__name__} without `kept = {kept!r}`; leave one of them"
            " out"
        )


def adamw_8bit(*options: Any) -> Optimizer:
    """AdamW with both moments in 8 bits (https://arxiv.org/abs/2110.02861): approximate, 2 bytes a
    weight in place of 8. Blocks of 256 numbers have a scale; a tensor of fewer than 4,096 numbers
    keeps 32 bits."""
    load_bitsandbytes()
    from bitsandbytes.optim import AdamW8bit

    class PlainAdamW8bit(AdamW8bit):
        """Its state is a table of tensors for each parameter, as of other optimizers; the code
        books, which all parameters share and never change, are no part of it."""

        kept = "8bit"

        def state_dict(self) -> dict[str, Any]:
            whole = Optimizer.state_dict(self)
            state = {
                index: {key: value for key, value in entries.items() if key not in BOOKS}
                for index, entries in whole["state"].items()
            }
            return {**whole, "state": state}

        def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
            super().load_state_dict(state_dict, move_to_device)
            for parameter, entries in self.state.items():
                if "absmax1" in entries:  # which tensors with 32 bits have not
                    for key, book in BOOKS.items():
                        entries[key] = self.name2qmap[book].to(parameter.device)

    return PlainAdamW8bit(*options, min_8bit_size=SMALL)


class HostAdamW(Optimizer):
    """AdamW whose state and arithmetic are in the memory of the host: exact

    One tensor after another, weight and gradient are brought there, and the weight back; the next
    one comes while one is computed. What it answers is AdamW's own, on the host; a GPU's differs
    from it in the last bit.
    """

    kept = "host"

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, options)
        self._lanes: list[_Lane] = []  # two, for a GPU

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        moving = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not moving:
            return
        lanes = self._prepared([parameter for parameter, _ in moving])
        lanes[0].fetch(moving[0][0])
        for index, (parameter, group) in enumerate(moving):
            if index + 1 < len(moving):
                lanes[(index + 1) % 2].fetch(moving[index + 1][0])
            weight, gradient = lanes[index % 2].arrived(parameter)
            self._update(parameter, weight, gradient, group)
            lanes[index % 2].send(parameter)
        for lane in lanes:
            lane.wait()

    def _update(
        self, parameter: nn.Parameter, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]
    ) -> None:
        """Change the `weight` of a parameter, both of its shape and on the host."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        beta1, beta2 = group["betas"]
        adamw(
            [weight],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            foreach=False,
            fused=parameter.is_cuda,  # on a CPU the same kernels as the plain optimizer
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As every optimizer's, but that the state stays on the host."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [each for group in self.param_groups for each in group["params"]]
        for index, entries in state_dict["state"].items():
            self.state[parameters[index]] = {k: v.clone() for k, v in entries.items()}

    def _prepared(self, parameters: list[nn.Parameter]) -> list["_Lane"]:
        """Lanes that are wide enough."""
        width = max(parameter.numel() for parameter in parameters)
        device, dtype = parameters[0].device, parameters[0].dtype
        if not self._lanes or self._lanes[0].weight.numel() < width:
            self._lanes = [_Lane(width, device, dtype) for _ in range(2)]
        return self._lanes


class _Lane:
    """Room on the host for one weight and its gradient, and the way there and back."""

    def __init__(self, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self.copies = Copies(device)
        self.weight, self.gradient = (
            page_locked(width * dtype.itemsize, device, OPTION).view(dtype) for _ in range(2)
        )
        self.done: torch.cuda.Event | None = None  # when all that was begun has ended

    def fetch(self, parameter: nn.Parameter) -> None:
        """Begin to bring a parameter and its gradient here; what was sent before goes first."""
        weight, gradient = self._views(parameter)
        self.copies.begin(weight, parameter)
        self.done = self.copies.begin(gradient, parameter.grad)

    def arrived(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Weight and gradient, when they are here."""
        self.copies.finish(self.done)
        return self._views(parameter)

    def send(self, parameter: nn.Parameter) -> None:
        """Begin to bring the weight back."""
        weight, _ = self._views(parameter)
        self.done = self.copies.begin(parameter, weight)

    def wait(self) -> None:
        """Let what the device computes from now on begin after all that was begun."""
        self.copies.wait(self.done)

    def _views(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        count = parameter.numel()
        return (
            self.weight[:count].view(parameter.shape),
            self.gradient[:count].view(parameter.shape),
        )
