"""Compiled blocks: one compilation for all, and the numbers of blocks that are not."""

import pytest
import torch
from checkpoints.bare import ask, build
from torch import Tensor, nn
from torch._dynamo.utils import counters

from jtcore import compiling
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.compiling import compile_blocks
from jtcore.kernels import choose_attention
from jtcore.settings import Memory
from jtcore.streaming import stream_blocks
from jtcore.types import Backbone
from jtplugins.adapters.glora import GLoRA

# torch looks whether any tensor has a gradient, and hides what that warns of from none but itself
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget():
    """What is compiled, and torch's own settings, are a process's."""
    hooks, limit = (
        getattr(torch._dynamo.config, name)
        for name in ("skip_nnmodule_hook_guards", "recompile_limit")
    )
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.config.skip_nnmodule_hook_guards = hooks
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


@pytest.fixture
def backbone() -> Backbone:
    return build("cogvideox", layers=3)


@pytest.fixture
def targets() -> str:
    return "visual"


@pytest.fixture
def adapter(backbone, targets) -> Adapter:
    adapter = GLoRA(targets, rank=2, dropout=0.0).attach(backbone, {})
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=0.3)
    return adapter


def run(backbone: Backbone, adapter: Adapter, frames: int) -> list[Tensor]:
    """What is predicted, and the gradients."""
    with switched_on({adapter: 1.0}, 2):
        found = ask("cogvideox", frames=frames).put(backbone)
        gradients = torch.autograd.grad(found.square().mean(), list(adapter.parameters()))
    return [found.detach(), *gradients]


def alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    """The same prediction, and gradients up to the order in which theirs of inputs are added."""
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-6)
    return torch.equal(found[0], expected[0])


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("targets", ["*to_q"])  # tracing takes long
def test_all_blocks_share_what_is_compiled_of_one_and_later_steps_compile_nothing(
    backbone, adapter, monkeypatch
):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    plain = run(backbone, adapter, 1)
    compile_blocks(backbone)
    assert alike(run(backbone, adapter, 1), plain)
    assert graphs() == 2  # to the first block's input no gradient flows
    assert alike(run(backbone, adapter, 1), plain)
    with torch.no_grad():
        ask("cogvideox").put(backbone)
    assert graphs() == 2  # and nothing is compiled for sampling
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [0, 2])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_image_and_video_are_compiled_once_each_whatever_saves_memory(
    backbone, adapter, monkeypatch, streamed, checkpointed
):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    plain = {frames: run(backbone, adapter, frames) for frames in (1, 3)}
    stream_blocks(backbone, Memory(stream_blocks=streamed), CPU)
    if checkpointed:
        checkpoint_gradients(backbone, Memory(), CPU)
    compile_blocks(backbone)
    for _ in range(2):
        for frames in (1, 3):
            assert alike(run(backbone, adapter, frames), plain[frames])
    assert graphs() == 4
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # inductor's own
def test_kernels_that_are_compiled_compute_the_same_to_rounding(backbone, adapter):
    plain = run(backbone, adapter, 3)
    compile_blocks(backbone)
    for found, expected in zip(run(backbone, adapter, 3), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_attention_runs_on_the_chosen_kernel_in_backwards_second_run_too(backbone, adapter):
    plain = run(backbone, adapter, 1)
    checkpoint_gradients(backbone, Memory(), CPU)
    choose_attention(backbone, "math")
    with _Flash() as flash:
        found = run(backbone, adapter, 1)
    assert flash.count == 0
    for own, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


class _Flash(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts calls of the CPU's own kernel, which torch takes unless told otherwise"""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "flash_attention" in str(func)
        return func(*args, **(kwargs or {}))
