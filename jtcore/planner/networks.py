"""Networks of true size without numbers: made on the meta device, run as if on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from jtcore.adapter import Adapter, hooks_of
from jtcore.checkpointing import checkpoint_gradients
from jtcore.engine import DTYPES
from jtcore.model import attach_adapters
from jtcore.recipe import Recipe
from jtcore.settings import Memory
from jtcore.types import Backbone, BackboneSpec

META = torch.device("meta")


@frozen(eq=False)
class Network:
    """A denoiser with its adapters"""

    spec: BackboneSpec
    backbone: Backbone
    adapters: Mapping[str, Adapter]

    @property
    def tensors(self) -> Iterator[Tensor]:
        """All weights and buffers."""
        for module in (self.backbone.denoiser, *self.adapters.values()):
            yield from weights(module)


def offline(spec: BackboneSpec) -> BackboneSpec:
    """What can be reckoned with where nothing can be fetched."""
    return getattr(spec, "offline", lambda: spec)()


def build(recipe: Recipe, blocks: int | None = None, memory: Memory | None = None) -> Network:
    """What `load_model` makes of a recipe, without numbers; of `blocks` alike ones alone, if said.
    Of the options of memory those given are in force, and none unless said. Raises JtError."""
    spec = offline(recipe.backbone.spec)
    backbone = with_words(spec, spec.load(META, DTYPES[recipe.engine.precision]))
    adapters = attach_adapters(recipe.adapter, backbone, recipe.seed)
    if blocks is not None:
        shorten(backbone, blocks)
    if recipe.engine.gradient_checkpointing:
        checkpoint_gradients(backbone, memory or Memory(), META)
        for adapter in adapters.values():
            adapter.checkpoint_gradients()
    return Network(spec, backbone, adapters)


@frozen
class CountedWords:
    """A vocabulary in the place of one that is not here: of each word it says that it is a token"""

    vectors: int  # E

    def width(self) -> int:
        return self.vectors

    def pieces(self, text: str) -> int:
        return len(text.split())


@frozen(eq=False)
class Worded:
    """A backbone that has a vocabulary, for adapters that ask for one"""

    backbone: Backbone
    vocabulary: CountedWords

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)


def with_words(spec: BackboneSpec, backbone: Backbone) -> Backbone:
    """The backbone itself, where it has a vocabulary or does not say how wide one would be."""
    text = getattr(spec, "text_network", None)
    if text is None or getattr(backbone, "vocabulary", None) is not None:
        return backbone
    return Worded(backbone, CountedWords(text("cpu").width))


def weights(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def size(tensors: Iterator[Tensor]) -> int:
    """Bytes of distinct tensors."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())


def alike(backbone: Backbone) -> bool:
    """Whether all blocks are one after another in one list, of the same shapes, with as many hooks
    at the same places: what is said of three of them is then said of all."""
    blocks = backbone.blocks()
    return _list_of(backbone) is not None and len({_shape(each) for each in blocks.values()}) == 1


def shorten(backbone: Backbone, blocks: int) -> None:
    """Leave so many of blocks that are `alike`."""
    found = _list_of(backbone)
    assert found is not None
    del found[blocks:]


def without_numbers(modules: Sequence[nn.Module], mode: FakeTensorMode) -> None:
    """Move weights from the meta device to a CPU of `mode`; what requires gradients still does."""
    with mode:
        for module in {each for root in modules for each in root.modules()}:
            for name, weight in module._parameters.items():
                if weight is not None:
                    made = torch.empty_like(weight, device="cpu")
                    module._parameters[name] = nn.Parameter(made, weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty_like(buffer, device="cpu")


def _list_of(backbone: Backbone) -> nn.ModuleList | None:
    """The list that has all blocks, and nothing else."""
    names = list(backbone.blocks())
    path = names[0].rpartition(".")[0]
    if names != [f"{path}.{index}" for index in range(len(names))]:
        return None
    found = backbone.denoiser.get_submodule(path)
    return found if isinstance(found, nn.ModuleList) and len(found) == len(names) else None


def _shape(block: nn.Module) -> tuple:
    names = {module: name for name, module in block.named_modules()}
    hooks = sorted((names[module], table) for module, table, _ in hooks_of(block))
    return tuple((name, weight.shape) for name, weight in block.named_parameters()), tuple(hooks)
