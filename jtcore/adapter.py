"""Adapters: trained modules beside a frozen denoiser, silent until a pass switches them on."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import frozen
from torch import Tensor, nn

from jtcore.errors import JtError
from jtcore.types import Pass, Reference

TABLES = (  # where a module keeps its hooks, by their numbers
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
)
Hook = tuple[nn.Module, str, int]  # whose, in which table, its number


class Adapter(nn.Module):
    """Base of what `AdapterSpec.attach` returns.

    It holds its own parameters, so its tensors are named alike whatever else is attached, and
    reaches into the denoiser by hooks. `current` is None while it is off: a hook then leaves the
    denoiser's output as it is, whatever the weights.
    """

    current: Pass | None = None
    reach: "Reach"  # what core found when it was attached
    scales_samples = True  # whether each sample of a pass may have a scale of its own
    reads_text = False  # whether the text encoder is beside the denoiser while it is on
    varies = False  # whether a batch's data decide which of its weights a pass uses
    compiles = False  # whether its hooks may be compiled into the denoiser's blocks

    def scalars(self) -> Mapping[str, Tensor]:
        """What observers plot of the last pass, by name; each ()."""
        return {}

    def told(self, text: Tensor, prompts: Sequence[str]) -> Tensor:  # (B, L, D) -> (B, L, D)
        """What the denoiser is told of prompts in a pass in which the adapter is on, in place of
        their `text`: embedded as `AdapterSpec.replaces` says, and changed by adapters before."""
        return text

    def text_problems(self, learned: Sequence[str], asked: Sequence[str]) -> list[str]:
        """What keeps it from being trained on the captions `learned`, or told of all that are
        `asked`."""
        return []

    def replaced(self) -> Collection[str]:
        """The denoiser's modules, by name, that while they are called have weights of this adapter
        in place of theirs: those of its own submodule of that name."""
        return ()

    def read(self) -> Collection[str]:
        """The denoiser's modules, by name, of whose weights themselves its update is made."""
        return ()

    def checkpoint_gradients(self) -> None:
        """Keep less for backward, and compute it again, of what it computes beside the denoiser."""

    def low_rank(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """`down` (rank, in) and `up` (out, rank) of each linear, by its name in the denoiser.

        What files of plain LoRA hold: at scale 1 the linear answers W x + b + up down x, and
        nothing else is changed. Raises JtError where the adapter does otherwise.
        """
        raise JtError(f"{type(self).__name__} says of no linear that it is a plain LoRA of it")

    def factors(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """`down` (rank, in) and `up` (out, rank) of each linear's update, by its name in the
        denoiser, without any strength that depends on the input. Raises JtError where there are
        none."""
        return self.low_rank()

    def strengths(self) -> Mapping[str, Tensor]:
        """What each layer's update was multiplied by in the last pass, by name; each (). Nothing
        where that is always the scale."""
        return {}


def told(adapters: Iterable[Adapter], text: Tensor, prompts: Sequence[str]) -> Tensor:
    """The `text` (B, L, D) of prompts as the adapters that are on change it, one after another."""
    for adapter in adapters:
        text = adapter.told(text, prompts)
    return text


@frozen
class Reach:
    """How much there is of an adapter."""

    modules: int  # of the denoiser, that it reaches into
    parameters: int  # its own


def hooks_of(denoiser: nn.Module) -> Iterator[Hook]:
    """All hooks in a network."""
    for module in denoiser.modules():
        for table in TABLES:
            for number in getattr(module, table):
                yield module, table, number


@contextmanager
def switched_on(
    adapters: Mapping[Adapter, float | Tensor],
    batch: int,
    files: tuple[int, ...] | None = None,
    reference: Reference | None = None,
    halves: int = 1,
) -> Iterator[None]:
    """Switch adapters on at their scales for one forward pass and its backward.

    The whole pass sees one immutable `Pass`: gradient checkpointing runs the forward again
    during backward, and must find what the first forward found.
    """
    busy = [type(adapter).__name__ for adapter in adapters if adapter.current is not None]
    assert not busy, f"{busy} are in a pass that has not ended"
    for adapter, scale in adapters.items():
        adapter.current = Pass(batch, scale, files, reference, halves)
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.current = None
