"""Which options make a recipe fit: the least loss of speed first, the exact before others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from attrs import evolve, frozen

from jtcore.planner.estimate import estimate
from jtcore.planner.measure import Measured
from jtcore.planner.runs import Pass
from jtcore.recipe import Recipe
from jtcore.settings import Memory

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
SHOWN = 3


@frozen
class Proposal:
    """Settings that make a recipe fit"""

    settings: tuple[str, ...]
    exact: bool
    needed: int  # bytes
    slower: float  # times as long as without


def propose(
    recipe: Recipe, measured: Measured, room: int, speed: float, processes: int
) -> Iterator[Proposal]:
    """The best that is exact, and the best that is not if that is faster; none where nothing
    helps."""
    found = []
    base = slow_down(recipe, measured, recipe.engine.memory, speed)
    for memory in _candidates(recipe):
        needed = estimate(recipe, measured, memory, processes).worst.needed
        if needed <= room:
            slower = slow_down(recipe, measured, memory, speed) / base
            changed = _changed(recipe.engine.memory, memory)
            found.append(Proposal(changed, _exact(memory), needed, slower))
    found.sort(key=lambda each: (each.slower, len(each.settings)))
    exact = [each for each in found if each.exact][:1]
    others = [each for each in found if not each.exact and not _beaten(each, exact)][:1]
    yield from exact + others


def slow_down(recipe: Recipe, measured: Measured, memory: Memory, speed: float) -> float:
    """How many times as long an average step takes as without any of the options."""
    passes = [one for each in measured.passes.values() for one in each]
    plain = sum(one.chance * one.work.total for one in passes) / speed
    if not plain:
        return 1.0
    return (
        sum(one.chance * _seconds(recipe, measured, memory, one, speed) for one in passes) / plain
    )


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


def _candidates(recipe: Recipe) -> Iterator[Memory]:
    """Every combination of options that may be taken together with the engine's own."""
    own = recipe.engine.memory
    divided = recipe.engine.kind == "deepspeed"
    whole = not (recipe.engine.deepspeed and recipe.engine.deepspeed.stage == 3)
    checkpointed = recipe.engine.gradient_checkpointing
    places = ("device", "host") if checkpointed else (own.checkpoints,)
    parts = PARTS if checkpointed and whole else (0.0,)
    bases = (None, "int8", "nf4") if whole else (None,)
    optimizers = (None,) if divided else (None, "8bit", "host")
    texts = ("device", "host")
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


def _changed(own: Memory, other: Memory) -> tuple[str, ...]:
    names = ("checkpoints", "keep_blocks", "stream_blocks", "stream_share", "base", "optimizer")
    found = []
    for name in (*names, "text_encoder"):
        was, now = getattr(own, name), getattr(other, name)
        if was != now:
            found.append(f"engine.memory.{name}={now}" if now is not None else f"no {name}")
    return tuple(found)
