"""A model: a backbone's denoiser with adapters attached, and captions embedded for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from attrs import Factory, frozen
from torch import Tensor

from jtcore.adapter import Adapter, Reach, hooks_of
from jtcore.checkpointing import checkpoint_gradients
from jtcore.compiling import compile_blocks
from jtcore.engine import Engine
from jtcore.errors import JtError
from jtcore.kernels import choose_attention
from jtcore.lowbit import lower
from jtcore.mentions import named_adapters
from jtcore.reading import replaced_words
from jtcore.rng import seed_of
from jtcore.streaming import require_room, stream_blocks
from jtcore.structure import Component
from jtcore.types import AdapterSpec, Backbone
from jtcore.words import Words, finder, unknown


@frozen(eq=False)
class Model:
    """What is trained, validated and sampled."""

    backbone: Backbone
    adapters: Mapping[str, Adapter]
    texts: Mapping[str, Tensor]  # caption -> (L, D)
    engine: Engine
    pictures: Mapping[str, Tensor] = Factory(dict)  # path -> (E,), as an image encoder embeds them
    words: Words = unknown  # where a phrase is in a prompt

    def scaled(self, scales: Mapping[str, float | Tensor]) -> dict[Adapter, float | Tensor]:
        """Scales by adapter instead of by name, as `switched_on` takes them."""
        return {self.adapters[name]: scale for name, scale in scales.items()}

    def train(self, mode: bool = True) -> None:
        """Dropout of the adapters on or off; the denoiser is always in evaluation mode."""
        for adapter in self.adapters.values():
            adapter.train(mode)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Training waits until the block is left: no dropout, and no random number of its own is
        used up."""
        device = self.engine.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.train(False)
            try:
                yield
            finally:
                self.train(True)


def load_model(
    backbone: Component,
    adapters: Mapping[str, Component],
    texts: Mapping[str, Tensor],
    engine: Engine,
    seed: int,
    pictures: Mapping[str, Tensor] = MappingProxyType({}),
) -> Model:
    """Load the denoiser and attach the adapters, off. Raises JtError.

    In this order: what comes later sees the blocks as they are left by what came before.
    """
    memory = engine.memory
    host = torch.device("cpu")  # whence blocks are streamed
    home = host if memory.streams else engine.device
    if memory.streams:
        require_room(backbone.spec.load(torch.device("meta"), engine.dtype).denoiser)
    loaded = backbone.spec.load(host if memory.base else home, engine.dtype)
    if memory.base:
        lower(loaded, memory.base, home)
    stream_blocks(loaded, memory, engine.device)
    attached = attach_adapters(adapters, loaded, seed)
    for adapter in attached.values():
        adapter.to(engine.device)
        if engine.gradient_checkpointing:
            adapter.checkpoint_gradients()
    if engine.gradient_checkpointing:
        checkpoint_gradients(loaded, memory, engine.device)
    if engine.compile:
        compile_blocks(loaded)
    if engine.attention != "auto":
        choose_attention(loaded, engine.attention)
    words = finder(backbone.spec, replaced_words(adapters))
    return Model(loaded, attached, texts, engine, pictures, words)


def attach_adapters(
    components: Mapping[str, Component],
    backbone: Backbone,
    seed: int,
    others: Mapping[str, Adapter] = MappingProxyType({}),
) -> dict[str, Adapter]:
    """Attach them, switched off, with weights drawn from the seed and their name: in order, but
    each after those that its options name. `others` are attached already.

    Raises JtError that names the adapter where its targets match nothing.
    """
    adapters: dict[str, Adapter] = {}
    problems = []
    for name in attach_order(components):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "adapter", name))
            try:
                spec = components[name].spec
                adapters[name] = _attach(spec, backbone, {**others, **adapters})
            except JtError as error:
                problems += [f"adapter.{name}: {problem}" for problem in error.problems]
    if problems:
        raise JtError(problems)
    return {name: adapters[name] for name in components}


def _attach(spec: AdapterSpec, backbone: Backbone, others: Mapping[str, Adapter]) -> Adapter:
    """Attach one, and note what it reaches."""
    before = set(hooks_of(backbone.denoiser))
    adapter = spec.attach(backbone, others)
    _refuse_replaced(adapter, others)
    modules = {module for module, _, _ in set(hooks_of(backbone.denoiser)) - before}
    parameters = sum(weight.numel() for weight in adapter.parameters())
    adapter.reach = Reach(len(modules), parameters)
    return adapter


def _refuse_replaced(adapter: Adapter, others: Mapping[str, Adapter]) -> None:
    """Raises JtError where one makes an update of weights in whose place another puts its own: the
    order in which they were attached would shape what comes of that."""
    for name, other in others.items():
        pairs = (adapter.read(), other.replaced()), (other.read(), adapter.replaced())
        both = [path for reads, replaced in pairs for path in reads if path in set(replaced)]
        if both:
            raise JtError(
                f"{len(both)} layers, the first {both[0]!r}, are those of {name!r} too, and one of"
                " the two replaces the weights that the other makes its update of; choose `targets`"
                " that do not overlap"
            )


def attach_order(components: Mapping[str, Component]) -> list[str]:
    """Their names, each behind those that its options name."""
    order: dict[str, None] = {}

    def place(name: str, waiting: tuple[str, ...] = ()) -> None:
        for other in named_adapters(components[name].spec):
            if other in components and other not in (*waiting, name):
                place(other, (*waiting, name))
        order[name] = None

    for name in components:
        place(name)
    return list(order)
