"""Which options make a recipe fit: the least loss of speed first, the exact before others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from attrs import evolve, fields, frozen

from jtcore.planner.estimate import estimate
from jtcore.planner.measure import Measured
from jtcore.planner.runs import Pass
from jtcore.recipe import Recipe
from jtcore.settings import EngineSettings, Memory

PCIE = 20e9  # bytes a second between host and device, that page-locked copies come to
HOST = 8e9  # bytes of Adam's state a second, that a host works off
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of all blocks, that are streamed
OVERHEAD = {  # shares of time, beside what copies take that nothing hides
    "checkpoints": 0.02,
    "stream": 0.03,
    "int8": 0.05,
    "nf4": 0.2,
    "8bit": 0.01,
}
SPARE = 0.05  # of the room, that is not spent on speed: predictions are off by as much


@frozen
class Proposal:
    """Settings that make a recipe fit, or make one that fits faster"""

    settings: tuple[str, ...]  # as `--set` takes them
    exact: bool
    needed: int  # bytes
    slower: float  # times as long as without


@frozen(eq=False)
class Search:
    """For a card with `room` bytes, that computes with `speed` operations a second

    `checkpointed` is the recipe with gradient checkpointing, where it has none and could.
    """

    recipe: Recipe
    measured: Measured
    checkpointed: tuple[Recipe, Measured] | None
    room: int
    speed: float
    processes: int

    def fitting(self) -> Iterator[Proposal]:
        """The best that is exact, and the best that is not if that is faster; none where nothing
        helps."""
        found = sorted(self._found(), key=lambda each: (each.slower, len(each.settings)))
        exact = [each for each in found if each.exact][:1]
        others = [each for each in found if not each.exact and not _beaten(each, exact)][:1]
        yield from exact + others

    def faster(self) -> Iterator[Proposal]:
        """Of a recipe that fits: blocks that are not run again, as far as there is room."""
        own = self.recipe.engine.memory
        if self.recipe.engine.gradient_checkpointing and not own.streams:
            kept = self._most_kept(self.recipe, self.measured, own)
            if kept.keep_blocks > own.keep_blocks:
                yield self._proposal(self.recipe, self.measured, kept)

    def _found(self) -> Iterator[Proposal]:
        others = (self.recipe, self.measured), self.checkpointed
        for recipe, measured in filter(None, others):
            for memory in _candidates(recipe, measured):
                kept = memory
                if recipe.engine.gradient_checkpointing and not memory.streams:
                    kept = self._most_kept(recipe, measured, memory)
                proposal = self._proposal(recipe, measured, kept)
                if proposal.needed <= self.room:
                    yield proposal

    def _most_kept(self, recipe: Recipe, measured: Measured, memory: Memory) -> Memory:
        """With as many blocks that keep what they compute as there is room for, where it was
        measured what they keep."""
        least, most = memory.keep_blocks, len(measured.blocks) if measured.block_keeps else 0
        while least < most:
            middle = (least + most + 1) // 2
            tried = evolve(memory, keep_blocks=middle)
            needed = estimate(recipe, measured, tried, self.processes).worst.needed
            if needed <= (1 - SPARE) * self.room:
                least = middle
            else:
                most = middle - 1
        return evolve(memory, keep_blocks=least)

    def _proposal(self, recipe: Recipe, measured: Measured, memory: Memory) -> Proposal:
        needed = estimate(recipe, measured, memory, self.processes).worst.needed
        own = seconds(self.recipe, self.measured, self.recipe.engine.memory, self.speed)
        other = seconds(recipe, measured, memory, self.speed)
        return Proposal(
            _changed(self.recipe.engine, evolve(recipe.engine, memory=memory)),
            _exact(memory),
            needed,
            other / own if own else 1.0,
        )


def seconds(recipe: Recipe, measured: Measured, memory: Memory, speed: float) -> float:
    """Of an average step, under options of memory."""
    passes = [one for each in measured.passes.values() for one in each]
    return sum(one.chance * _seconds(recipe, measured, memory, one, speed) for one in passes)


def slow_down(recipe: Recipe, measured: Measured, memory: Memory, speed: float) -> float:
    """How many times as long an average step takes as without any of the options."""
    passes = [one for each in measured.passes.values() for one in each]
    plain = sum(one.chance * one.work.total for one in passes) / speed
    return seconds(recipe, measured, memory, speed) / plain if plain else 1.0


def _seconds(recipe: Recipe, measured: Measured, memory: Memory, one: Pass, speed: float) -> float:
    """Of a pass: what copies take beyond the time that they have, and what else options cost."""
    kept = min(1.0, memory.keep_blocks / max(1, len(measured.blocks)))
    computing = (one.work.total - kept * one.work.recompute) / speed
    copied, share = 0.0, 0.0
    if memory.checkpoints == "host":
        share += OVERHEAD["checkpoints"]
        copied += 2 * max((each.kept - each.near for each in one.moments.values()), default=0)
    if memory.streams:
        share += OVERHEAD["stream"]
        count = memory.streamed(len(measured.blocks))
        copied += 2 * sum(measured.blocks[:count])
    share += OVERHEAD["int8" if memory.base == "fp8" else memory.base] if memory.base else 0.0
    share += OVERHEAD["8bit"] if memory.optimizer == "8bit" else 0.0
    trained = max(
        sum(measured.adapters[name].parameters for name in stage.trained)
        for stage in recipe.stage.values()
    )
    updating = 8 * trained / HOST if memory.optimizer == "host" else 0.0
    return max(computing * (1 + share), copied / PCIE) + updating


def _candidates(recipe: Recipe, measured: Measured) -> Iterator[Memory]:
    """Every combination of options that may be taken together with the engine's own."""
    own = recipe.engine.memory
    divided = recipe.engine.kind == "deepspeed"
    whole = not (recipe.engine.deepspeed and recipe.engine.deepspeed.stage == 3)
    checkpointed = recipe.engine.gradient_checkpointing
    places = ("device", "host") if checkpointed else (own.checkpoints,)
    movable = whole and not measured.trains_blocks  # what is trained is whole, and on the device
    parts = PARTS if checkpointed and movable else (0.0,)
    bases = (None, "int8", "nf4") if movable and not recipe.engine.compile else (None,)
    optimizers = (None,) if divided else (None, "8bit", "host")
    texts = ("device",) if measured.reads_text else ("device", "host")
    for checkpoints, part, base, optimizer, text in product(
        places, parts, bases, optimizers, texts
    ):
        yield evolve(
            own,
            checkpoints=checkpoints,
            keep_blocks=0,
            stream_blocks=0,
            stream_share=part,
            base=base,
            optimizer=optimizer,
            text_encoder=text,
        )


def _exact(memory: Memory) -> bool:
    """Up to the order of sums in the text encoder."""
    return memory.base is None and memory.optimizer != "8bit"


def _beaten(one: Proposal, exact: Sequence[Proposal]) -> bool:
    return any(each.slower <= one.slower for each in exact)


def _changed(own: EngineSettings, other: EngineSettings) -> tuple[str, ...]:
    """As `--set` takes them."""
    found = []
    if other.gradient_checkpointing and not own.gradient_checkpointing:
        found.append("engine.gradient_checkpointing=true")
    for name in (each.name for each in fields(Memory)):
        was, now = getattr(own.memory, name), getattr(other.memory, name)
        if was != now:
            found.append(f"engine.memory.{name}={'false' if now is None else now}")
    return tuple(found)
