"""Nameless lists of tensors, whose meaning is the order in which a network is walked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from torch import Tensor, nn

from jtcore import JtError
from jtcore.types import Backbone, Imported

from ._released import load_released

Sites = Mapping[str, tuple[str, ...]]  # class of a block -> what the names of its linears contain
Shape = tuple[int, ...]


@frozen(eq=False)
class Positional:
    """How a list is to be read: `parts` of each linear in turn ("up", "down"), block by block."""

    sites: Sites
    parts: tuple[str, ...]
    role: str  # of the backbone, which has these linears and no others
    adapter: Mapping[str, Any]  # the table of the adapter, but for targets and rank

    def names(self, denoiser: nn.Module) -> list[str]:
        """The linears in the order of the list: one class of blocks after another."""
        return [name for cls in self.sites for name in _linears(denoiser, cls, self.sites[cls])]

    def read(self, held: Sequence[Tensor], backbone: Backbone) -> Imported:
        """The adapter that `held` is. Raises JtError with what does not fit."""
        names = self.names(backbone.denoiser)
        slots = [(name, part) for name in names for part in self.parts]
        if len(held) != len(slots):
            raise JtError(
                f"has {len(held)} tensors, but {type(backbone.denoiser).__name__} takes"
                f" {len(slots)}, {len(self.parts)} for each of {len(names)} linear layers; is it of"
                " another backbone or size?"
            )
        tensors = dict(zip(slots, held, strict=True))
        rank = len(tensors[names[0], "down"])
        if problems := list(_problems(tensors, rank, backbone.denoiser)):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise JtError(problems[0] + more)
        if backbone.targets(self.role).keys() != set(names):
            raise JtError(f"the backbone's role {self.role!r} has other layers")
        return Imported(
            {**self.adapter, "targets": self.role, "rank": rank},
            {f"{name}.{part}.weight": tensor for (name, part), tensor in tensors.items()},
        )


def read_list(path: Path) -> list[Tensor]:
    """The matrices of a list that `torch.save` wrote, in float32.

    Nothing that the file says is run. Raises JtError where it holds anything but matrices.
    """
    held = load_released(path, "a list of tensors")
    if not isinstance(held, list) or not held:
        raise JtError(f"expected a list of tensors, found {type(held).__name__}")
    for index, item in enumerate(held):
        if not (isinstance(item, Tensor) and item.ndim == 2 and item.is_floating_point()):
            raise JtError(f"item {index} of its list is {_shown(item)}, not a matrix")
    return [item.detach().float() for item in held]


def _linears(denoiser: nn.Module, cls: str, words: tuple[str, ...]) -> Iterator[str]:
    for path, block in denoiser.named_modules():
        if type(block).__name__ != cls:
            continue
        for inner, layer in block.named_modules():
            if isinstance(layer, nn.Linear) and any(word in inner for word in words):
                yield f"{path}.{inner}"


def _problems(
    tensors: Mapping[tuple[str, str], Tensor], rank: int, denoiser: nn.Module
) -> Iterator[str]:
    for index, ((name, part), tensor) in enumerate(tensors.items()):
        linear = denoiser.get_submodule(name)
        wanted: dict[str, Shape] = {
            "up": (linear.out_features, rank),
            "down": (rank, linear.in_features),
            "gate": (1, linear.in_features),
        }
        if tuple(tensor.shape) != wanted[part]:
            yield (
                f"tensor {index} has the shape {tuple(tensor.shape)}, but {part!r} of"
                f" {name} at rank {rank} has {wanted[part]}; is it of another backbone or size?"
            )


def _shown(item: object) -> str:
    if isinstance(item, Tensor):
        return f"a tensor of {item.dtype} and shape {tuple(item.shape)}"
    return f"of type {type(item).__name__}"
