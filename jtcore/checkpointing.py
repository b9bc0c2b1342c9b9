"""Gradient checkpointing: of chosen modules the inputs are kept alone, here or in host memory.

Everything in this file is exact: what a module computes for backward is what it has computed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from jtcore.copying import Copies, page_locked
from jtcore.settings import Memory
from jtcore.types import Backbone

# options that need it
OF_CHECKPOINTING = ("checkpoints", "keep_blocks", "stream_blocks", "stream_share")
CPU = torch.device("cpu")
PLAIN = Memory()


def checkpoint_gradients(
    backbone: Backbone, memory: Memory = PLAIN, device: torch.device = CPU
) -> None:
    """Run the backbone's `checkpointed` modules again for backward, but those with one of the last
    `memory.keep_blocks` blocks in them. Asked for again, it begins anew.

    A module runs again with its hooks, so adapters may be attached before or after; they must
    answer in the second run as in the first: a pass of theirs never changes.
    """
    host = HostInputs(device) if memory.checkpoints == "host" else None
    modules, kept = checkpointed(backbone), kept_blocks(backbone, memory)
    for module in modules.values():
        vars(module).pop("_call_impl", None)
        if kept.isdisjoint(module.modules()):
            # where a call begins, and not its `forward`: hooks of the module are run again with it
            module._call_impl = partial(_run, module, host)


def checkpointed(backbone: Backbone) -> Mapping[str, nn.Module]:
    """The modules that are run again, by name. Raises JtError where there cannot be any."""
    return getattr(backbone, "checkpointed", backbone.blocks)()


def kept_blocks(backbone: Backbone, memory: Memory) -> set[nn.Module]:
    """The last ones: what they keep is given back first, before others compute anything again."""
    blocks = list(backbone.blocks().values())
    return set(blocks[len(blocks) - memory.keep_blocks :])


def _run(module: nn.Module, host: "HostInputs | None", *given: Any, **named: Any) -> Any:
    call = partial(nn.Module._call_impl, module)
    if not torch.is_grad_enabled():
        return call(*given, **named)
    inputs, structure = tree_flatten((given, named))  # checkpoints take tensors by position alone

    def again(*inputs: Any) -> Any:
        given, named = tree_unflatten(inputs, structure)
        return call(*given, **named)

    with host.away() if host else nullcontext():
        return checkpoint(again, *inputs, use_reentrant=False)


class HostInputs:
    """Inputs of checkpointed modules, in host memory from their forward to their backward.

    They are copied while modules compute: away in forward, and back in backward while the module
    behind runs. Each stays on the device until the next module begins, which waits for its copy,
    so that its memory is given back in the order of the computation. What several modules are given
    alike, such as the text, stays on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copies = Copies(device)
        self.free: list[Tensor] = []  # host memory, each (bytes,)
        self.leaving: list[_Input] = []  # on the device still
        self.last: Callable[[], _Call | None] = lambda: None
        self.known: WeakValueDictionary[tuple, _Input] = WeakValueDictionary()

    def __deepcopy__(self, memo: dict) -> "HostInputs":
        return self  # a copied network has the same device

    @contextmanager
    def away(self) -> Iterator[None]:
        """While a module is called, its inputs go where they wait."""
        self.settle()
        call = _Call(self, self.last)
        self.last = ref(call)
        with saved_tensors_hooks(call.pack, call.unpack):
            yield

    def settle(self) -> None:
        """Let go of what the last module was given: what is computed from here on waits for the
        copies."""
        for each in self.leaving:
            each.leave()
        self.leaving.clear()

    def take(self, count: int) -> Tensor:  # (at least count,), uint8
        """Host memory that nobody uses: the smallest that is enough, or more of it."""
        fitting = [n for n, memory in enumerate(self.free) if len(memory) >= count]
        if fitting:
            return self.free.pop(min(fitting, key=lambda n: len(self.free[n])))
        return page_locked(count, self.device, 'engine.memory.checkpoints = "host"')


class _Call:
    """One forward of a module: what it was given."""

    def __init__(self, host: HostInputs, before: "Callable[[], _Call | None]") -> None:
        self.host = host
        self.before = before  # the call before, as long as it has a backward to come
        self.inputs: list[_Input] = []

    def pack(self, x: Tensor) -> "tuple[_Call, _Input] | Tensor":
        """Where it waits; the tensor itself if that is elsewhere already, or has gaps."""
        dense = torch.empty_like(x, device="meta").stride() == x.stride()
        if x.device.type != self.host.device.type or not dense:
            return x
        key = (StorageWeakRef(x.untyped_storage()), *_place(x))
        found = self.host.known.get(key)
        if found is None:
            found = self.host.known[key] = _Input(self.host, x)
            self.host.leaving.append(found)
        elif found not in self.inputs:
            found.stay(x)
        self.inputs.append(found)
        return self, found

    def unpack(self, packed: "tuple[_Call, _Input] | Tensor") -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        packed[1].fetch()
        if before := self.before():
            before.fetch()  # while this one computes
        return packed[1].arrive()

    def fetch(self) -> None:
        for each in self.inputs:
            each.fetch()


class _Input:
    """A tensor that a module was given, or several were."""

    here: Tensor | None = None  # on the device
    memory: Tensor | None = None  # (bytes,) of the host; None where several were given it

    def __init__(self, host: HostInputs, x: Tensor) -> None:
        self.host = host
        self.like = torch.empty_like(x, device="meta")
        self.memory = host.take(x.nbytes)
        self.here = x.detach()
        self.version: int | None = x._version
        self.done = host.copies.begin(self._away(), _flat(x.detach()))

    def stay(self, x: Tensor) -> None:
        """Another module is given it too."""
        self._release()
        self.here = x.detach()

    def leave(self) -> None:
        """Give memory of the device back, in the order of the computation; unless backward has
        begun with it, for that has done so."""
        if self.here is not None:
            self.arrive()

    def fetch(self) -> None:
        """Begin to copy it back, unless it is here or on its way."""
        if self.here is None:
            self.here = torch.empty_strided(
                self.like.shape, self.like.stride(), dtype=self.like.dtype, device=self.host.device
            )
            self.done, self.version = self.host.copies.begin(_flat(self.here), self._away()), None

    def arrive(self) -> Tensor:
        """What computes from now on may read it, and write to its memory when it is given back."""
        found = self.here
        assert self.version in (None, found._version), "an input of a module was changed in place"
        self.host.copies.wait(self.done)
        if self.memory is not None:
            self.here = None  # a second backward fetches it again
        return found

    def _away(self) -> Tensor:  # (numel,)
        return self.memory[: self.like.nbytes].view(self.like.dtype)

    def __del__(self) -> None:
        if self.here is not None:  # nobody waited for a copy of it
            self.host.copies.wait(self.done)
        self._release()

    def _release(self) -> None:
        """Whoever takes the memory next copies after what has been copied."""
        if self.memory is not None:
            self.host.free.append(self.memory)
        self.memory = None


def _place(x: Tensor) -> tuple[Any, ...]:
    """What tells tensors in one storage apart, and one from itself when it has been changed."""
    return x.storage_offset(), x.dtype, tuple(x.shape), x.stride(), x._version


def _flat(x: Tensor) -> Tensor:  # -> (numel,)
    """A tensor without gaps, as it is in memory."""
    return x.as_strided((x.numel(),), (1,))
