"""How many bytes are kept from forward to backward, counted tensor by tensor."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from checkpoints.bare import build, questions
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jtcore.adapter import switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.copying import PAGE
from jtcore.settings import Memory
from jtcore.streaming import BUFFERS, stream_blocks
from jtplugins.adapters.lora import LoRA

CPU = torch.device("cpu")
HIDDEN = 2 * 18 * 32 * 4  # bytes of a batch's tokens of video, in float32
TEXT = 2 * 48 * 32 * 4


class Counted(TorchDispatchMode):
    """Memory of all that is computed meanwhile, but of the tensors `before`; what is made as bytes
    is the host's"""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.found = {StorageWeakRef(x.untyped_storage()): 0 for x in before}

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        for x in tree_leaves(answer):
            if isinstance(x, Tensor) and x.device == CPU:
                storage = x.untyped_storage()
                counts = x.dtype is not torch.uint8
                self.found.setdefault(StorageWeakRef(storage), storage.nbytes() * counts)
        return answer

    def there(self) -> list[int]:
        """The sizes of what is there still, in bytes."""
        return [size for storage, size in self.found.items() if size and not storage.expired()]


def kept(layers: int, memory: Memory | None) -> list[int]:
    """Sizes of what a forward on videos leaves behind; with `memory` None all is kept."""
    backbone = build("cogvideox", layers=layers)
    adapter = LoRA("visual", rank=2, dropout=0.0).attach(backbone, {}).train()
    if memory:
        checkpoint_gradients(backbone, memory, CPU)
    question = questions("cogvideox", torch.Generator().manual_seed(0))[1]
    before = (*backbone.denoiser.parameters(), *adapter.parameters(), *question)
    with switched_on({adapter: 1.0}, 2), Counted(before) as counted:
        answer = backbone.predict(*question)
        found = counted.there()
        answer.sum().backward()
    return found


def test_each_block_keeps_its_inputs_and_in_host_memory_nothing():
    every, host, nothing = (
        [sum(kept(layers, memory)) for layers in (3, 7)]
        for memory in (Memory(), Memory(checkpoints="host"), None)
    )
    assert every[1] - every[0] == 4 * (HIDDEN + TEXT)
    assert host[0] == host[1] < every[0]
    assert nothing[1] - nothing[0] > 10 * 4 * (HIDDEN + TEXT)


def test_blocks_that_are_kept_cost_what_each_keeps():
    plain, checkpointed = sum(kept(5, None)), sum(kept(5, Memory()))
    found = [sum(kept(5, Memory(keep_blocks=count))) for count in (0, 1, 2, 5)]
    assert found[0] == checkpointed and found[3] == plain
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=0.05)


def test_streamed_blocks_have_two_buffers_of_the_largest_on_the_device():
    backbone = build("unet")  # whose blocks differ
    sizes = [
        sum(-(-weight.nbytes // 256) * 256 for weight in block.parameters())
        for block in backbone.blocks().values()
    ]
    assert len(set(sizes)) > 1
    sizes = [-(-size // PAGE) * PAGE for size in sizes]
    ring = stream_blocks(backbone, Memory(stream_blocks=len(sizes)), CPU)
    assert [buffer.memory.nbytes for buffer in ring.buffers] == [max(sizes)] * BUFFERS
    assert [block.memory.nbytes for block in ring.blocks] == sizes
