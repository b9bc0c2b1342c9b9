"""Data parallelism: every process has a copy of what is trained, and gradients are averaged.

Adapters are reached by hooks and never called through a module of their own, so that nothing is
wrapped: when a step's passes are over, the gradients that some process has are summed in flat
buckets and divided by the number of processes.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from jtcore.engine import Engine, parameters_of

BUCKET = 25_000_000  # numbers that travel at once


class AveragingEngine(Engine):
    """Several processes, each with batches of its own."""

    def prepare(
        self,
        optimizer: Optimizer,
        adapters: Mapping[str, nn.Module],
        denoiser: nn.Module,
        clip: float,
    ) -> None:
        """All begin with the weights of the first."""
        if not self.processes.alone:
            for parameter in parameters_of(optimizer):
                distributed.broadcast(parameter.data, 0)

    def update(self, optimizer: Optimizer, clip: float) -> float:
        """As with one process, with the gradients' mean over all."""
        if not self.processes.alone:
            average_gradients(parameters_of(optimizer))
        return super().update(optimizer, clip)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Of all processes; 0 counts where one has none of a parameter, which stays without where
    nobody has any."""
    trained = [p for p, used in zip(parameters, used_anywhere(parameters), strict=True) if used]
    for bucket in buckets(trained, BUCKET):
        flat = torch.cat([_gradient(parameter).flatten() for parameter in bucket])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        pieces = flat.split([parameter.numel() for parameter in bucket])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)


def used_anywhere(parameters: Sequence[nn.Parameter]) -> list[bool]:
    """Of each, whether some process has a gradient."""
    here = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    here = here.to(parameters[0].device)
    distributed.all_reduce(here, distributed.ReduceOp.MAX)
    return here.bool().tolist()


def buckets(parameters: Sequence[nn.Parameter], most: int) -> Iterator[list[nn.Parameter]]:
    """In order, with at most so many numbers together, or one parameter with more."""
    bucket: list[nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        if bucket and numbers + parameter.numel() > most:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(parameter)
        numbers += parameter.numel()
    if bucket:
        yield bucket


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
