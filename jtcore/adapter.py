"""Adapters: trained modules beside a frozen denoiser, silent until a pass switches them on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from jtcore.errors import JtError
from jtcore.types import Pass


class Adapter(nn.Module):
    """Base of what `AdapterSpec.attach` returns.

    It holds its own parameters, so its tensors are named alike whatever else is attached, and
    reaches into the denoiser by hooks. `current` is None while it is off: a hook then leaves the
    denoiser's output as it is, whatever the weights.
    """

    current: Pass | None = None

    def scalars(self) -> Mapping[str, Tensor]:
        """What observers plot of the last pass, by name; each ()."""
        return {}

    def low_rank(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """`down` (rank, in) and `up` (out, rank) of each linear, by its name in the denoiser.

        What files of plain LoRA hold: at scale 1 the linear answers W x + b + up down x, and
        nothing else is changed. Raises JtError where the adapter does otherwise.
        """
        raise JtError(f"{type(self).__name__} says of no linear that it is a plain LoRA of it")


@contextmanager
def switched_on(
    adapters: Mapping[Adapter, float | Tensor], batch: int, files: tuple[int, ...] | None = None
) -> Iterator[None]:
    """Switch adapters on at their scales for one forward pass and its backward.

    The whole pass sees one immutable `Pass`: gradient checkpointing runs the forward again
    during backward, and must find what the first forward found.
    """
    busy = [type(adapter).__name__ for adapter in adapters if adapter.current is not None]
    assert not busy, f"{busy} are in a pass that has not ended"
    for adapter, scale in adapters.items():
        adapter.current = Pass(batch, scale, files)
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.current = None
