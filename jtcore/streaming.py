"""Streaming: frozen blocks live in host memory, and are on the device for as long as they run.

It is exact. Blocks take turns in two buffers on the device: while one runs, the next is copied.
What backward needs of a block's weights refers to the buffer that the block was run from. So no
order of events is relied on: a buffer is written to only when nothing refers to what is in it, and
where there is none such, there is one more.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from jtcore.adapter import Adapter
from jtcore.checkpointing import kept_blocks
from jtcore.copying import Copies, page_locked, require_host_memory
from jtcore.errors import JtError
from jtcore.settings import Memory
from jtcore.types import Backbone

OPTION = "engine.memory.stream_blocks"
BUFFERS = 2
APART = 256  # bytes: where a tensor may begin, as torch's own allocator has it


def stream_blocks(backbone: Backbone, memory: Memory, device: torch.device) -> "Ring | None":
    """Of a denoiser in host memory, keep the parameters of `memory.stream_blocks` blocks there and
    put all else on the `device`. Returns the buffers, if there are any. Raises JtError."""
    if problems := list(memory_problems(memory, backbone, {})):
        raise JtError(f"engine.memory.{problem}" for problem in problems)
    blocks = list(streamed(backbone, memory).values())
    if not blocks:
        return None
    hosted = [Hosted.of(block, device) for block in blocks]
    _move(backbone.denoiser, device, {w.hosted for block in hosted for w in block.weights})
    ring = Ring(device, hosted)
    for index, block in enumerate(blocks):
        # the first to be called: adapters' hooks on the block, which come later, find it there
        block.register_forward_pre_hook(partial(ring.enter, index))
        block.register_forward_hook(partial(ring.leave, index), always_call=True)
    return ring


def streamed(backbone: Backbone, memory: Memory) -> dict[str, nn.Module]:
    """The blocks that are, by name: spread evenly over those that keep nothing of what they
    compute, so that every copy has as much time as can be."""
    kept = kept_blocks(backbone, memory)
    blocks = [(name, block) for name, block in backbone.blocks().items() if block not in kept]
    count = memory.streamed(len(backbone.blocks()))
    return dict(blocks[int((n + 0.5) * len(blocks) / count)] for n in range(count))


def require_room(denoiser: nn.Module) -> None:
    """Raises JtError where the host has not memory for all of a denoiser, which may be on meta."""
    require_host_memory(sum(weight.nbytes for weight in denoiser.parameters()), OPTION)


def memory_problems(
    memory: Memory, backbone: Backbone, adapters: Mapping[str, Adapter]
) -> Iterator[str]:
    """What keeps a denoiser's blocks from what is asked of them, "option: problem" each."""
    count = len(backbone.blocks())
    left = count - memory.keep_blocks
    if left < 0:
        yield f"keep_blocks: the backbone has {count} blocks, found {memory.keep_blocks}"
    elif memory.stream_blocks > left:
        but = f" but for those of keep_blocks = {memory.keep_blocks}" if memory.keep_blocks else ""
        yield f"stream_blocks: the backbone has {left} blocks{but}, found {memory.stream_blocks}"
    else:
        yield from _trained_problems(streamed(backbone, memory), adapters)


def _trained_problems(blocks: Collection[str], adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """Streamed blocks with modules whose weights are trained: copies of theirs are on the device
    all the time."""
    for name, adapter in adapters.items():
        both = [(b, m) for b in blocks for m in adapter.replaced() if f"{m}.".startswith(f"{b}.")]
        if both:
            block, module = both[0]
            yield (
                f"stream_blocks: the block {block!r} is streamed, and adapter.{name} trains the"
                f" weights of {module!r} in it; stream fewer blocks, or none, or train others"
            )


@frozen(eq=False)
class Weight:
    """A parameter of a streamed block"""

    owner: nn.Module
    name: str
    hosted: nn.Parameter  # in host memory
    start: int  # bytes from the block's first

    def view(self, memory: Tensor) -> Tensor:  # (bytes,) of the block -> as the parameter
        kind, shape = self.hosted.dtype, self.hosted.shape
        return memory[self.start : self.start + self.hosted.nbytes].view(kind).view(shape)

    def put(self, weight: nn.Parameter) -> None:
        """In the parameter's place."""
        self.owner._parameters[self.name] = weight


@frozen(eq=False)
class Hosted:
    """A block whose parameters are in one piece of host memory"""

    memory: Tensor  # (bytes,), uint8
    weights: tuple[Weight, ...]

    @classmethod
    def of(cls, block: nn.Module, device: torch.device) -> "Hosted":
        """Move the block's parameters there. Raises JtError where there is too little."""
        weights, end = [], 0
        for module in block.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    assert not weight.requires_grad, f"{name} is trained, and so not streamed"
                    weights.append(Weight(module, name, weight, end))
                    end += -(-weight.nbytes // APART) * APART
        memory = page_locked(end, device, OPTION)
        for weight in weights:
            weight.hosted.data = weight.view(memory).copy_(weight.hosted)
        return cls(memory, tuple(weights))


class Buffer:
    """Memory of the device in which blocks take turns"""

    def __init__(self, count: int, device: torch.device) -> None:
        self.memory = torch.empty(count, dtype=torch.uint8, device=device)
        self.holds: Hosted | None = None
        self.done: torch.cuda.Event | None = None  # when the copy is
        self.lent: list[StorageWeakRef] = []

    @property
    def free(self) -> bool:
        """Whether nothing refers to what is in it: no block that runs, and no backward to come."""
        self.lent = [each for each in self.lent if not each.expired()]
        return not self.lent

    def lend(self) -> Tensor:  # (bytes,)
        """The memory, as tensors that refer to it are told from others."""
        found = torch.from_dlpack(self.memory)  # a storage of its own, in the same place
        self.lent.append(StorageWeakRef(found.untyped_storage()))
        return found


class Ring:
    """Two buffers, and more for as long as backward refers to both"""

    def __init__(self, device: torch.device, blocks: Sequence[Hosted]) -> None:
        self.device = device
        self.blocks = blocks  # in the order of depth
        self.size = max(len(block.memory) for block in blocks)
        self.copies = Copies(device)
        self.buffers = [Buffer(self.size, device) for _ in range(BUFFERS)]
        self.last = 0  # which block was run

    def __deepcopy__(self, memo: dict) -> "Ring":
        raise TypeError("a streamed denoiser cannot be copied: its blocks share two buffers")

    def enter(self, index: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Put the block's weights in their places, and begin to copy those of the next."""
        block = self.blocks[index]
        buffer = self._holding(block) or self._fill(self._free() or self._more(), block)
        self.copies.wait(buffer.done)
        memory = buffer.lend()
        for weight in block.weights:
            # parameters of their own: backward refers to them, and hosted ones come back meanwhile
            weight.put(nn.Parameter(weight.view(memory), requires_grad=False))
        following, self.last = self._following(index), index
        if following is None or self._holding(self.blocks[following]):
            return
        if free := self._free():
            self._fill(free, self.blocks[following])

    def leave(self, index: int, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Put the hosted weights back; the buffer is as it was while anything refers to it."""
        for weight in self.blocks[index].weights:
            weight.put(weight.hosted)
        if len(self.buffers) > BUFFERS:
            self._give_up()

    def _following(self, index: int) -> int | None:
        """Which block is likely to run next: it is no matter of numbers, but of waiting."""
        end = len(self.blocks) - 1
        if not torch.is_grad_enabled():  # once more from the first, as sampling does
            return (index + 1) % len(self.blocks)
        backwards = index < self.last or index == self.last == end
        return index - 1 if backwards and index else index + 1 if index < end else None

    def _holding(self, block: Hosted) -> Buffer | None:
        return next((each for each in self.buffers if each.holds is block), None)

    def _free(self) -> Buffer | None:
        """One that may be written to."""
        return next((each for each in self.buffers if each.free), None)

    def _give_up(self) -> None:
        """Of more than two, those that are not needed any more."""
        for each in [each for each in self.buffers if each.free]:
            if len(self.buffers) > BUFFERS:
                self.copies.wait(each.done)
                self.buffers.remove(each)

    def _more(self) -> Buffer:
        self.buffers.append(Buffer(self.size, self.device))
        return self.buffers[-1]

    def _fill(self, buffer: Buffer, block: Hosted) -> Buffer:
        assert buffer.free, "something refers to it"
        buffer.holds, count = block, len(block.memory)
        buffer.done = self.copies.begin(buffer.memory[:count], block.memory)
        return buffer


def _move(network: nn.Module, device: torch.device, left: set[nn.Parameter]) -> None:
    """All tensors but those `left`."""
    for module in network.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor not in left:
                tensor.data = tensor.data.to(device)
