"""Passes of training and sampling, encoding and decoding, run on tensors without numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from attrs import frozen
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.autograd.graph import _engine_run_backward

from jtcore import recipe
from jtcore.adapter import switched_on
from jtcore.branch import Branch, attended, loss_terms, predict, training_only, weighted_sum
from jtcore.engine import DTYPES
from jtcore.noise import PLAIN
from jtcore.planner import cuda
from jtcore.planner.ledger import GRADIENTS, Ledger
from jtcore.planner.networks import Network, without_numbers
from jtcore.reckoning import reckoned_as
from jtcore.references import shown
from jtcore.types import Backbone, Noised, Part, Reference
from jtcore.words import watching

FIRST, LAST = "first", "last"  # blocks


@frozen(eq=False)
class Machine:
    """What passes are run on: a CPU without numbers, that counts as the device would have it"""

    gpu: bool
    dtype: torch.dtype
    mode: FakeTensorMode

    @classmethod
    def of(cls, settings: recipe.EngineSettings, gpu: bool) -> Machine:
        return cls(gpu, DTYPES[settings.precision], FakeTensorMode(allow_non_fake_inputs=True))

    def ledger(self, outside: Iterable[Tensor]) -> Ledger:
        return Ledger(outside, *((cuda.GRAIN, cuda.workspace) if self.gpu else ()))

    @contextmanager
    def counting(self, ledger: Ledger) -> Iterator[None]:
        autocast = cuda.GpuAutocast() if self.gpu else nullcontext()
        with reckoned_as("cuda" if self.gpu else "cpu"), self.mode, ledger, autocast:
            yield

    def autocast(self) -> AbstractContextManager:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast("cpu", self.dtype)


@frozen
class Shown:
    """What a pass is shown, in shapes"""

    batch: int
    latents: tuple[int, int, int, int]  # C, F, H, W
    text: tuple[int, int]  # L, D
    masked: bool = False
    reference: int | None = None  # E, of an image encoder's embedding


def train_pass(machine: Machine, network: Network, settings: recipe.Branch, what: Shown) -> Ledger:
    """Forward and backward of one part of a branch: `run_branch`'s own."""
    ledger = _prepare(machine, network)
    with machine.counting(ledger), _marking(network.backbone, ledger):
        branch, part, noised = _branch(machine, network, settings, what)
        reference = shown(part, settings.drop_reference, branch.rng)
        scales = dict.fromkeys(branch.adapters.values(), 1.0)
        on = switched_on(scales, what.batch, part.files, reference)
        with training_only(branch.adapters, settings.trained), _gradients_told(network, ledger), on:
            seen = watching(branch.backbone, branch.words, attended(branch, part), part)
            with seen as watch:
                prediction, maps = predict(branch, part, noised, watch)
                loss = _loss(branch, part, noised, prediction, maps)
                del prediction, maps
                ledger.keep()
                ledger.backward = True
                ledger.mark("loss")
                _backward(loss)
    return ledger


@torch.no_grad()
def sample_pass(machine: Machine, network: Network, on: Iterable[str], what: Shown) -> Ledger:
    """One forward of sampling; `what.batch` has both halves of guidance."""
    ledger = _prepare(machine, network, training=False)
    with machine.counting(ledger), _marking(network.backbone, ledger):
        latents = torch.empty(what.batch, *what.latents)
        text = torch.empty(what.batch, *what.text)
        reference = None
        if what.reference is not None:
            embedding = torch.empty(what.batch, what.reference)
            reference = Reference(embedding, torch.ones(what.batch))
        adapters = {network.adapters[name]: 1.0 for name in on}
        times = torch.zeros(what.batch, dtype=torch.long)
        with switched_on(adapters, what.batch, reference=reference), machine.autocast():
            network.backbone.predict(latents, times, text).float()
    return ledger


@torch.no_grad()
def codec_pass(machine: Machine, codec: object, shape: tuple[int, ...], decode: bool) -> Ledger:
    """Encode pixels, or decode latents, of a `shape` (1, ...)."""
    modules = parts_of(codec)
    without_numbers(modules, machine.mode)
    ledger = machine.ledger(each for module in modules for each in module.state_dict().values())
    with machine.counting(ledger):
        given = torch.empty(shape)
        if decode:
            codec.decode(given)
        else:
            codec.encode(given, torch.Generator())
    return ledger


@torch.no_grad()
def text_pass(machine: Machine, network: nn.Module, tokens: int) -> Ledger:
    """Embed one prompt."""
    without_numbers([network], machine.mode)
    ledger = machine.ledger(network.state_dict().values())
    with machine.counting(ledger):
        network(torch.zeros(1, tokens, dtype=torch.long))
    return ledger


def parts_of(codec: object) -> list[nn.Module]:
    """The networks of a codec: itself, or what it has as attributes."""
    if isinstance(codec, nn.Module):
        return [codec]
    names = [name for name in dir(codec) if not name.startswith("_")]
    found = [getattr(codec, name) for name in names]
    return [each for each in found if isinstance(each, nn.Module)]


def _prepare(machine: Machine, network: Network, training: bool = True) -> Ledger:
    modules = [network.backbone.denoiser, *network.adapters.values()]
    without_numbers(modules, machine.mode)
    for adapter in network.adapters.values():
        adapter.train(training)
        for weight in adapter.parameters():
            weight.grad = None
    return machine.ledger(network.tensors)


def _branch(
    machine: Machine, network: Network, settings: recipe.Branch, what: Shown
) -> tuple[Branch, Part, Noised]:
    """What `run_branch` works with, at a time and noise without numbers."""
    prompts = ("",) * what.batch
    latents = torch.empty(what.batch, *what.latents)
    part = Part(
        latents=latents,
        text=torch.empty(what.batch, *what.text),
        prompts=prompts,
        stream="",
        mask=torch.empty(what.batch, 1, *what.latents[1:]) if what.masked else None,
        files=(0,) * what.batch,
        reference=None if what.reference is None else torch.empty(what.batch, what.reference),
    )
    times = torch.zeros(what.batch, dtype=torch.long)
    noised = Noised(torch.empty_like(latents), times, torch.empty_like(latents))
    branch = Branch(
        path="",
        settings=settings,
        backbone=network.backbone,
        adapters={name: network.adapters[name] for name in settings.adapters},
        parts=(part,),
        rng=torch.Generator(),
        draws=PLAIN,
        noise_rng=torch.Generator(),
        words=_first,
        autocast=machine.autocast,
        backward=Tensor.backward,
    )
    return branch, part, noised


def _first(prompt: str, phrase: str) -> tuple[int, ...]:
    """The tokens of a phrase, wherever it is in a caption: how many there are shapes nothing."""
    return (0,)


def _loss(
    branch: Branch, part: Part, noised: Noised, prediction: Tensor, maps: Mapping
) -> Tensor:  # ()
    """Of losses whose course depends on numbers, the mean square of the prediction instead."""
    try:
        return weighted_sum(branch, loss_terms(branch, part, noised, prediction, maps))
    except DataDependentOutputException:
        return (prediction - noised.target).square().mean()


def _backward(loss: Tensor) -> None:  # ()
    """As `torch.autograd.backward`, which would leave modes that watch functions."""
    _engine_run_backward((loss,), (torch.ones_like(loss),), False, False, (), True, True)


@contextmanager
def _gradients_told(network: Network, ledger: Ledger) -> Iterator[None]:
    """Gradients of weights count as such from the moment that weights have them."""

    def told(weight: nn.Parameter) -> None:
        ledger.call(weight.grad, GRADIENTS)

    weights = [w for each in network.adapters.values() for w in each.parameters()]
    handles = [w.register_post_accumulate_grad_hook(told) for w in weights if w.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _marking(backbone: Backbone, ledger: Ledger) -> Iterator[None]:
    """A segment for the forward and backward of the first and the last block, of those between
    together, of what is before and after. What is live from block to block is kept."""
    blocks = list(backbone.blocks().values())
    handles = []
    for index, block in enumerate(blocks):
        place = {0: FIRST, len(blocks) - 1: LAST}.get(index, "between")
        handles += [
            block.register_forward_pre_hook(_begins(ledger, f"forward {place}")),
            block.register_forward_hook(_ended(ledger, f"backward {place}", place == LAST)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _begins(ledger: Ledger, name: str):
    def begins(*_: object) -> None:
        if not ledger.backward:
            ledger.keep()
            ledger.mark(name)

    return begins


def _ended(ledger: Ledger, name: str, last: bool):
    def ended(block: nn.Module, inputs: object, output: object) -> None:
        if ledger.backward:
            return
        outputs = output if isinstance(output, tuple) else (output,)
        tensors = [each for each in outputs if isinstance(each, Tensor) and each.requires_grad]
        for tensor in tensors:
            tensor.register_hook(lambda gradient: ledger.mark(name))
        if last:
            ledger.keep()
            ledger.mark("after the blocks")

    return ended
