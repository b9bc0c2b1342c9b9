"""A model of PyTorch's caching allocator of GPU memory: what it reserves for what is allocated.

Written from the description in PyTorch's documentation of memory management and the constants of
its source (c10/cuda/CUDACachingAllocator). One stream, no limit: nothing is ever given back.
"""

import gc
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from attrs import define, field, frozen
from torch import Tensor

from jtcore.planner import cuda, networks
from jtcore.planner.ledger import WORKING, Ledger
from jtcore.planner.passes import Machine, Shown, train_pass
from jtcore.recipe import Recipe

MIB = 2**20
SMALL = MIB  # what is not larger is in segments of its own
SMALL_SEGMENT, SEGMENT, ROUND = 2 * MIB, 20 * MIB, 2 * MIB
LARGE = 10 * MIB  # from which on a segment is as large as what it is for


@define(eq=False)
class Block:
    """A stretch of a segment"""

    start: int
    size: int
    small: bool
    segment: int = 0  # where that begins
    free: bool = True
    before: "Block | None" = None
    after: "Block | None" = None

    @property
    def key(self) -> tuple[int, int]:
        return self.size, self.start


@define(eq=False)
class Allocator:
    """Reserves segments, or, where they are `expandable`, one of each kind that grows

    `reserved` is what it takes where there is room for all. `least` is what some of it was in use
    of, at the most: where there is no more room than that, it gives segments that are wholly free
    back, and pages of those that grow.
    """

    expandable: bool = False
    reserved: int = 0
    least: int = 0
    _next: int = 0
    _free: dict[bool, list[tuple[tuple[int, int], Block]]] = field(
        factory=lambda: {True: [], False: []}
    )
    _last: dict[bool, Block] = field(factory=dict)  # of segments that grow
    _sizes: dict[int, int] = field(factory=dict)  # of segments, by where they begin
    _used: dict[tuple[int, int], int] = field(factory=dict)  # blocks, by segment and page of it
    _held: int = 0

    def allocate(self, size: int) -> Block:
        size = max(1, -(-size // cuda.GRAIN)) * cuda.GRAIN
        small = size <= SMALL
        block = self._fitting(size, small) or self._more(size, small)
        block.free = False
        rest = block.size - size
        if rest >= (cuda.GRAIN if small or self.expandable else SMALL + 1):
            self._split(block, size)
        self._hold(block, 1)
        return block

    def give_back(self, block: Block) -> None:
        self._hold(block, -1)
        block.free = True
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._forget(other)
        if block.after is not None and block.after.free:
            self._join(block, block.after)
        if block.before is not None and block.before.free:
            block = self._join(block.before, block)
        self._keep(block)

    def _fitting(self, size: int, small: bool) -> Block | None:
        """The smallest that is free and large enough."""
        free = self._free[small]
        index = bisect_left(free, (size, -1), key=lambda each: each[0])
        return free.pop(index)[1] if index < len(free) else None

    def _more(self, size: int, small: bool) -> Block:
        last = self._last.get(small)
        if self.expandable and last is not None:
            return self._grown(last, size, small)
        if self.expandable:
            unit = SMALL_SEGMENT if small else SEGMENT
            count = -(-size // unit) * unit
        elif small:
            count = SMALL_SEGMENT
        else:
            count = SEGMENT if size < LARGE else -(-size // ROUND) * ROUND
        self.reserved += count
        block = Block(self._next, count, small, self._next)
        self._sizes[block.start] = count
        self._next += 2**44 if self.expandable else count
        self._last[small] = block
        return block

    def _grown(self, last: Block, size: int, small: bool) -> Block:
        """The end of a segment, with what it lacks."""
        unit = SMALL_SEGMENT if small else SEGMENT
        if last.free:
            self._forget(last)
            count = -(-(size - last.size) // unit) * unit
            last.size += count
        else:
            count = -(-size // unit) * unit
            block = Block(last.start + last.size, count, small, last.segment, before=last)
            last.after = block
            self._last[small] = last = block
        self.reserved += count
        return last

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.start + size, block.size - size, block.small, block.segment)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after, block.size = rest, size
        if self._last.get(block.small) is block:
            self._last[block.small] = rest
        self._keep(rest)

    def _join(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.after = second.after
        if first.after is not None:
            first.after.before = first
        if self._last.get(first.small) is second:
            self._last[first.small] = first
        return first

    def _hold(self, block: Block, change: int) -> None:
        """Of its segment, or the pages that it reaches into."""
        unit = self._sizes[block.segment]
        if self.expandable:
            unit = SMALL_SEGMENT if block.small else SEGMENT
        start = block.start - block.segment
        for page in range(start // unit, -(-(start + block.size) // unit)):
            before = self._used.get((block.segment, page), 0)
            self._used[block.segment, page] = before + change
            if before == 0 or before + change == 0:
                self._held += change * unit
        self.least = max(self.least, self._held)

    def _keep(self, block: Block) -> None:
        insort(self._free[block.small], (block.key, block), key=lambda each: each[0])

    def _forget(self, block: Block) -> None:
        free = self._free[block.small]
        del free[bisect_left(free, block.key, key=lambda each: each[0])]


class Replaying(Ledger):
    """A ledger whose storages allocators are asked for, as they come, and given back, as they go"""

    def __init__(self, outside: Iterable[Tensor], allocators: Sequence[Allocator]) -> None:
        self.allocators = allocators
        self.blocks: dict[int, list[Block]] = {}
        super().__init__(outside, cuda.GRAIN, self._workspace)

    def add(self, tensor: Tensor, cause: str = WORKING) -> None:
        key = tensor.untyped_storage()._cdata
        known = key in self.causes
        super().add(tensor, cause)
        if not known and self.sizes[key]:
            self.blocks[key] = [one.allocate(self.sizes[key]) for one in self.allocators]

    def _workspace(self, operation: Any, args: Sequence[Any]) -> int:
        if count := cuda.workspace(operation, args):
            for one in self.allocators:
                one.give_back(one.allocate(count))
        return count

    def _free(self, key: int) -> None:
        super()._free(key)
        for one, block in zip(self.allocators, self.blocks.pop(key, ()), strict=False):
            one.give_back(block)


@frozen
class ReplayingMachine(Machine):
    """A machine whose passes share allocators"""

    allocators: Sequence[Allocator]

    def ledger(self, outside: Iterable[Tensor]) -> Ledger:
        return Replaying(outside, self.allocators)


def replay(recipe: Recipe, allocators: Sequence[Allocator], text: tuple[int, int]) -> None:
    """Two steps of a recipe with one branch on one table of data, through all blocks one after
    another, with AdamW's step between, whose state is allocated where a pass has left gaps. `text`
    is (L, D)."""
    machine = Machine.of(recipe.engine, gpu=True)
    machine = ReplayingMachine(machine.gpu, machine.dtype, machine.mode, allocators)
    network = networks.build(recipe)
    (stage,) = recipe.stage.values()
    (branch,) = stage.branch.values()
    (data,) = recipe.used_data.values()
    shape = network.spec.latent_shape(data.frames, *data.size)
    for one, weight in product(allocators, network.tensors):
        one.allocate(weight.nbytes)
    for step in range(2):
        train_pass(machine, network, branch, Shown(data.batch, shape, text))
        trained = [w for each in network.adapters.values() for w in each.parameters()]
        for one in allocators:
            for weight in trained * 2 if step == 0 else ():  # both moments
                one.allocate(4 * weight.numel())
            roots = [one.allocate(4 * weight.numel()) for weight in trained]
            for root in roots:
                one.give_back(root)
        for weight in trained:
            weight.grad = None
        gc.collect()
