"""Options that save memory change no bit of what is computed."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from attrs import frozen
from checkpoints.denoisers import BUILD, denoiser, questions
from torch import Tensor

from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.settings import Memory
from jtcore.streaming import Ring, stream_blocks
from jtcore.types import Backbone
from jtplugins.adapters.bottleneck import ResidualBottleneck
from jtplugins.adapters.glora import GLoRA

CPU = torch.device("cpu")
NONE = Memory()
HOST, KEPT = Memory(checkpoints="host"), Memory(keep_blocks=2)
STREAMED, HOSTED = Memory(stream_blocks=3), Memory(checkpoints="host", stream_blocks=3)
ALL = Memory(checkpoints="host", stream_blocks=3, keep_blocks=1)
MEMORIES = [NONE, HOST, KEPT, STREAMED, Memory(stream_blocks=5), Memory(stream_blocks=1), ALL]
every_denoiser = pytest.mark.parametrize("kind", BUILD)
every_memory = pytest.mark.parametrize(
    "memory", MEMORIES, ids=lambda m: f"{m.checkpoints}-keep{m.keep_blocks}-stream{m.stream_blocks}"
)


@frozen(eq=False)
class Ready:
    """A denoiser with adapters that are trained"""

    backbone: Backbone
    adapters: Sequence[Adapter]
    ring: Ring | None


def ready(
    kind: str,
    memory: Memory | None,
    dtype: torch.dtype = torch.float32,
    layers: int = 5,
    bottleneck: bool = False,
) -> Ready:
    """With `memory` None nothing is computed again."""
    backbone = denoiser(kind, dtype, layers)
    ring = stream_blocks(backbone, memory, CPU) if memory else None
    torch.manual_seed(1)
    specs = [GLoRA("visual", rank=2, dropout=0.4)]
    specs += [ResidualBottleneck("visual", width=3)] if bottleneck else []
    adapters = [spec.attach(backbone, {}).train() for spec in specs]
    for adapter in adapters:
        for weight in adapter.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    if memory:
        checkpoint_gradients(backbone, memory, CPU)
    return Ready(backbone, adapters, ring)


def train(model: Ready, kind: str, batches: int = 2) -> dict[str, Tensor]:
    """Gradients, accumulated over batches of pictures and of videos in turn."""
    rng = torch.Generator().manual_seed(2)
    half = model.backbone.denoiser.dtype is torch.bfloat16
    on = dict.fromkeys(model.adapters, 1.0)
    for batch in range(batches):
        torch.manual_seed(batch)
        for question in questions(kind, rng):
            with switched_on(on, 2):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    answer = model.backbone.predict(*question)
                answer.float().square().mean().backward()
    named = [each for adapter in model.adapters for each in adapter.named_parameters()]
    return {f"{n} {name}": weight.grad for n, (name, weight) in enumerate(named)}


def sample(model: Ready, kind: str) -> list[Tensor]:
    rng = torch.Generator().manual_seed(4)
    torch.manual_seed(4)
    with torch.no_grad(), switched_on(dict.fromkeys(model.adapters, 0.7), 2):
        return [model.backbone.predict(*question) for question in questions(kind, rng) * 2]


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, Tensor]]:
    """What is computed where everything is kept, in float32, by denoiser."""
    return {kind: train(ready(kind, None), kind) for kind in BUILD}


@every_denoiser
@every_memory
def test_gradients_are_the_same_to_the_last_bit(plain, kind, memory):
    assert all(gradient.abs().max() > 0 for gradient in plain[kind].values())
    assert equal(train(ready(kind, memory), kind), plain[kind])


@every_denoiser
@pytest.mark.parametrize("memory", [HOSTED, ALL], ids=["hosted", "all"])
def test_gradients_in_bf16_are_the_same_to_the_last_bit(kind, memory):
    expected = train(ready(kind, None, torch.bfloat16), kind)
    assert equal(train(ready(kind, memory, torch.bfloat16), kind), expected)


@every_denoiser
def test_adapters_with_hooks_on_blocks_are_the_same_to_the_last_bit(kind):
    expected = train(ready(kind, None, bottleneck=True), kind)
    assert equal(train(ready(kind, ALL, bottleneck=True), kind), expected)


@every_denoiser
def test_a_streamed_denoiser_answers_the_same_before_between_and_after_training(kind):
    streamed, plain = ready(kind, STREAMED), ready(kind, None)
    for _ in range(2):
        each = zip(sample(streamed, kind), sample(plain, kind), strict=True)
        assert all(torch.equal(found, expected) for found, expected in each)
        assert equal(train(streamed, kind), train(plain, kind))
