"""Options that save memory change no bit of what is computed."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from attrs import frozen
from checkpoints.bare import EVERY, build, questions
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jtcore import JtError, copying
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import HostInputs, checkpoint_gradients
from jtcore.settings import Memory
from jtcore.streaming import BUFFERS, Buffer, Ring, stream_blocks
from jtcore.types import Backbone
from jtplugins.adapters.bottleneck import ResidualBottleneck
from jtplugins.adapters.glora import GLoRA

CPU = torch.device("cpu")
HOST, STREAMED = Memory(checkpoints="host"), Memory(stream_blocks=3)
HOSTED, ALL = Memory("host", stream_blocks=4), Memory("host", keep_blocks=1, stream_blocks=3)
MEMORIES = {
    "checkpointed": Memory(),
    "host": HOST,
    "kept": Memory(keep_blocks=2),
    "one streamed": Memory(stream_blocks=1),
    "all streamed": Memory(stream_blocks=5),
    "all options": ALL,
}


@frozen(eq=False)
class Ready:
    """A denoiser with adapters that are trained, one of them with hooks on the blocks themselves"""

    backbone: Backbone
    adapters: Sequence[Adapter]
    ring: Ring | None


def ready(
    kind: str,
    memory: Memory | None,
    dtype: torch.dtype = torch.float32,
    checkpoints: bool = True,
    device: torch.device = CPU,
) -> Ready:
    """With `memory` None nothing is computed again."""
    backbone = build(kind, dtype, layers=5)
    ring = stream_blocks(backbone, memory, device) if memory else None
    if ring is None:
        nn.Module.to(backbone.denoiser, device)
    torch.manual_seed(1)
    specs = GLoRA("visual", rank=2, dropout=0.4), ResidualBottleneck("visual", width=3)
    adapters = [spec.attach(backbone, {}).train().to(device) for spec in specs]
    for adapter in adapters:
        for weight in adapter.parameters():
            with torch.no_grad():
                weight.copy_(0.3 * torch.randn(weight.shape))
    if memory and checkpoints:
        checkpoint_gradients(backbone, memory, device)
    return Ready(backbone, adapters, ring)


def train(model: Ready, kind: str, batches: int = 1) -> dict[str, Tensor]:
    """Gradients, accumulated over batches of pictures and of videos in turn."""
    rng = torch.Generator().manual_seed(2)
    for batch in range(batches):
        torch.manual_seed(batch)
        for question in questions(kind, rng):
            with switched_on(dict.fromkeys(model.adapters, 1.0), 2):
                answer(model, question).float().square().mean().backward()
    named = [each for adapter in model.adapters for each in adapter.named_parameters()]
    return {f"{n} {name}": weight.grad for n, (name, weight) in enumerate(named)}


def answer(model: Ready, question: tuple[Tensor, Tensor, Tensor]) -> Tensor:  # (B, C, F, H, W)
    half = model.backbone.denoiser.dtype is torch.bfloat16
    device = next(model.adapters[0].parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        return model.backbone.predict(*(x.to(device) for x in question))


def sample(model: Ready, kind: str) -> list[Tensor]:
    rng = torch.Generator().manual_seed(4)
    torch.manual_seed(5)  # of dropout
    with torch.no_grad(), switched_on(dict.fromkeys(model.adapters, 0.7), 2):
        return [answer(model, question) for question in questions(kind, rng) * 2]


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    """What is computed where everything is kept."""
    return train(ready("cogvideox", None), "cogvideox", batches=2)


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_accumulated_gradients_are_the_same_to_the_last_bit(plain, memory):
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    model = ready("cogvideox", memory)

    assert equal(train(model, "cogvideox", batches=2), plain)
    assert model.ring is None or len(model.ring.buffers) == BUFFERS


@pytest.mark.parametrize("kind", EVERY)
def test_every_denoiser_learns_the_same_in_bf16_to_the_last_bit(kind):
    expected = train(ready(kind, None, torch.bfloat16), kind)
    model = ready(kind, ALL, torch.bfloat16)

    assert equal(train(model, kind), expected)
    assert len(model.ring.buffers) == BUFFERS


def test_a_streamed_denoiser_answers_the_same_before_between_and_after_training():
    streamed, plain = ready("cogvideox", STREAMED), ready("cogvideox", None)
    for _ in range(2):
        each = zip(sample(streamed, "cogvideox"), sample(plain, "cogvideox"), strict=True)
        assert all(torch.equal(found, expected) for found, expected in each)
        assert equal(train(streamed, "cogvideox"), train(plain, "cogvideox"))


@pytest.fixture
def poison(monkeypatch) -> None:
    """Memory that is given back holds NaN from there on: who still reads it does not go unseen."""
    leave, take = Ring.leave, HostInputs.take

    def leave_nothing(self: Ring, *given) -> None:
        leave(self, *given)
        for buffer in self.buffers:
            if buffer.free:
                buffer.memory.fill_(255)
                buffer.holds = None

    def take_nothing(self: HostInputs, count: int) -> Tensor:
        for memory in self.free:
            memory.fill_(255)
        return take(self, count)

    monkeypatch.setattr(Ring, "leave", leave_nothing)
    monkeypatch.setattr(HostInputs, "take", take_nothing)


@pytest.mark.parametrize("checkpoints", [True, False], ids=["checkpointed", "all kept"])
def test_no_memory_is_given_back_while_backward_needs_it(poison, plain, checkpoints):
    """Where all is kept, backward needs every streamed block at once."""
    model = ready("cogvideox", HOSTED, checkpoints=checkpoints)
    assert equal(train(model, "cogvideox", batches=2), plain)


def test_poison_kills_where_buffers_are_written_to_too_early(poison, plain, monkeypatch):
    monkeypatch.setattr(Buffer, "free", property(lambda buffer: True))
    found = train(ready("cogvideox", HOSTED), "cogvideox", batches=2)
    assert any(gradient.isnan().any() for gradient in found.values())


def test_blocks_that_are_needed_at_once_have_a_buffer_each_until_they_are_not():
    model = ready("cogvideox", STREAMED)
    blocks = [model.backbone.blocks()[f"transformer_blocks.{n}"] for n in (0, 2, 4)]
    hosted = [{k: weight.clone() for k, weight in block.named_parameters()} for block in blocks]
    for index, block in enumerate(blocks):
        model.ring.enter(index, block, ())
    there = [dict(block.named_parameters()) for block in blocks]
    assert all(equal(found, expected) for found, expected in zip(there, hosted, strict=True))
    assert len(model.ring.buffers) == 3

    for index, block in enumerate(blocks):
        model.ring.leave(index, block, (), None)
    del there
    sample(model, "cogvideox")
    assert len(model.ring.buffers) == BUFFERS


def test_an_input_that_is_changed_in_place_is_not_passed_over():
    model = ready("cogvideox", HOST)
    blocks = list(model.backbone.blocks().values())
    blocks[1].register_forward_hook(lambda block, given, out: None)
    second = blocks[1].forward
    blocks[1].forward = lambda hidden_states, **others: second(hidden_states.add_(1), **others)
    with pytest.raises(AssertionError, match="an input of a module was changed in place"):
        train(model, "cogvideox")


def test_a_host_without_room_is_told_before_anything_is_pinned(monkeypatch):
    monkeypatch.setattr(copying, "available", lambda: 1000)
    for memory, option in ((HOST, 'checkpoints = "host"'), (STREAMED, "stream_blocks")):
        with pytest.raises(JtError) as error:
            train(ready("cogvideox", memory), "cogvideox")
        told = "needs 0.0 GiB of host memory, and 0.0 GiB are available"
        assert str(error.value) == f"engine.memory.{option}: {told}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies are asynchronous on a GPU alone")
def test_copies_beside_the_computation_change_no_bit_on_a_gpu():
    device, learned = torch.device("cuda"), []
    for memory in (None, Memory(), ALL):
        model = ready("cogvideox", memory, torch.bfloat16, device=device)
        with sdpa_kernel(SDPBackend.MATH):  # others add in any order
            learned.append(train(model, "cogvideox", batches=3))
    assert equal(learned[1], learned[0]) and equal(learned[2], learned[0])
    assert len(model.ring.buffers) == BUFFERS
