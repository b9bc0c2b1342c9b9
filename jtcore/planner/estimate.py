"""Memory by phase and cause, as options of memory and engine make it of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from attrs import frozen

from jtcore.planner.measure import Linear, Measured
from jtcore.planner.runs import Moment, Pass
from jtcore.recipe import Recipe, Stage
from jtcore.settings import Memory

GIB = 2**30
CONTEXT = 3 * GIB // 4  # of CUDA and the workspaces of its libraries; not of torch's own counting
FRAGMENTS = 0.04  # of what comes and goes, with segments that grow
RING = 2  # buffers of streamed blocks
BUFFER = 2 * 2**20  # bytes of an allocator's smallest segment
STATE = {None: 8.0, "8bit": 2 + 8 / 256, "host": 0.0}  # bytes of Adam for each trained number
SCALE = 4  # bytes
GROUP = 64  # numbers of nf4 that share a scale
LANES = 2  # weights with their gradients that an optimizer on the host works on

Causes = Mapping[str, int]  # bytes


@frozen
class Phase:
    """What some part of a run needs of a device"""

    name: str
    causes: Causes

    @property
    def allocated(self) -> int:
        """What torch counts as such."""
        return sum(self.causes.values())

    @property
    def allowance(self) -> int:
        """For CUDA itself, and gaps between what comes and goes."""
        coming = sum(self.causes.get(cause, 0) for cause in ("gradients", "checkpoints", "working"))
        return CONTEXT + int(FRAGMENTS * coming)

    @property
    def needed(self) -> int:
        return self.allocated + self.allowance


@frozen
class Estimate:
    """What a recipe needs under some options"""

    phases: tuple[Phase, ...]
    host: Causes

    @property
    def worst(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.needed)


def estimate(recipe: Recipe, measured: Measured, memory: Memory, processes: int = 1) -> Estimate:
    """With the options of `memory` in place of the recipe's own."""
    found = _Reckoning(recipe, measured, memory, processes)
    return Estimate(tuple(found.phases()), found.host())


@frozen(eq=False)
class _Reckoning:
    recipe: Recipe
    measured: Measured
    memory: Memory
    processes: int

    def phases(self) -> Iterator[Phase]:
        """In the order of a run."""
        parts = self.measured.parts
        text = parts.get("text encoder")
        if text and self.memory.text_encoder == "device":
            yield Phase("encode text", {"weights": text.bytes, "working": self.measured.text})
        for name, working in self.measured.encoding.items():
            causes = {"weights": parts["codec"].bytes, "working": working}
            yield Phase(f"encode data.{name}", causes)
        for name, stage in self.recipe.stage.items():
            for one in self.measured.passes[name]:
                yield Phase(f"train {one.place}", self._trained(stage, one))
            yield Phase(f"update stage.{name}", self._updated(stage))
        if self.measured.sampling:
            codec = parts["codec"].bytes
            beside = self._resident() | {"codec": codec}
            working = max(each.total for each in self.measured.sampling.moments.values())
            yield Phase("sample", beside | {"working": working + self._unpacked})
            yield Phase("decode", beside | {"working": self.measured.decoding})

    def host(self) -> Causes:
        """Bytes of page-locked memory, and of the optimizer."""
        blocks, found = self._streamed, {}
        if self.memory.text_encoder == "host" and (text := self.measured.parts.get("text encoder")):
            found["text encoder"] = text.bytes  # gone before there is anything else
        if blocks:
            found["streamed blocks"] = sum(blocks)
        if self.memory.checkpoints == "host":
            passes = chain.from_iterable(self.measured.passes.values())
            moments = (moment for one in passes for moment in one.moments.values())
            found["checkpoints"] = max((each.kept - each.near for each in moments), default=0)
        zero = self.recipe.engine.deepspeed
        if self.memory.optimizer == "host" or (zero and zero.offload_optimizer):
            trained = max((self._trained_numbers(s) for s in self.recipe.stage.values()), default=0)
            found["optimizer"] = int(trained * STATE[None] / self.processes)
        if zero and zero.offload_parameters:
            found["parameters"] = self._weights // self.processes
        return found

    def _resident(self) -> dict[str, int]:
        """What is there from the loading of the denoiser to the end."""
        adapters = sum(part.bytes for part in self.measured.adapters.values())
        found = {"weights": self._weights - self._away + self._ring, "adapters": adapters}
        if self.measured.reads_text:
            found["text encoder"] = self.measured.parts["text encoder"].bytes
        zero = self.recipe.engine.deepspeed
        if zero and zero.stage == 3:
            largest = max(self.measured.blocks)
            share = 0 if zero.offload_parameters else 1 / self.processes
            found["weights"] = int(found["weights"] * share) + RING * largest
        return found

    def _trained(self, stage: Stage, one: Pass) -> Causes:
        """The highest moment of a pass."""
        before = _passes(stage) > 1
        moments = one.over_gradients if before else one.moments
        return max(
            (self._at(stage, name, moment, before) for name, moment in moments.items()),
            key=lambda causes: sum(causes.values()),
        )

    def _at(self, stage: Stage, segment: str, moment: Moment, before: bool) -> Causes:
        """A moment, in gradients that were there `before`, or its own."""
        kept = moment.near if self.memory.checkpoints == "host" else moment.kept
        kept += self._kept_blocks(segment)
        gradients = 4 * self._trained_numbers(stage) if before else moment.gradients
        return (
            self._resident()
            | self._state(stage)
            | {
                "gradients": int(gradients * self._share_of_gradients),
                "checkpoints": kept,
                "working": moment.working + self._unpacked,
            }
        )

    def _kept_blocks(self, segment: str) -> int:
        """More that blocks keep which are not checkpointed: while the last of them is gone back
        through, it has only what it would have computed again."""
        most = {"after the blocks": 0, "loss": 0, "backward last": 1, "forward last": 1}
        count = max(0, self.memory.keep_blocks - most.get(segment, self.memory.keep_blocks))
        return count * self.measured.block_keeps

    def _updated(self, stage: Stage) -> Causes:
        """AdamW takes a root of all second moments at once."""
        numbers = self._trained_numbers(stage)
        working = 4 * numbers if self.memory.optimizer is None and not self._zero_host else 0
        return (
            self._resident()
            | self._state(stage)
            | {
                "gradients": int(4 * numbers * self._share_of_gradients),
                "working": int(working * self._share_of_state),
            }
        )

    def _state(self, stage: Stage) -> dict[str, int]:
        numbers = self._trained_numbers(stage)
        state = 0 if self._zero_host else numbers * STATE[self.memory.optimizer]
        found = {"optimizer": int(state * self._share_of_state)}
        return found | ({"average": 4 * numbers} if stage.ema else {})

    def _trained_numbers(self, stage: Stage) -> int:
        return sum(self.measured.adapters[name].parameters for name in stage.trained)

    @property
    def _zero_host(self) -> bool:
        zero = self.recipe.engine.deepspeed
        return bool(zero and zero.offload_optimizer)

    @property
    def _share_of_state(self) -> float:
        return 1 / self.processes if self.recipe.engine.kind == "deepspeed" else 1.0

    @property
    def _share_of_gradients(self) -> float:
        zero = self.recipe.engine.deepspeed
        return 1 / self.processes if zero and zero.stage >= 2 else 1.0

    @property
    def _weights(self) -> int:
        """Of the denoiser, wherever they are."""
        linears = self.measured.linears if self.memory.base else ()
        saved = sum(each.numbers * each.bytes - packed(each, self.memory.base) for each in linears)
        return self.measured.parts["denoiser"].bytes - saved

    @property
    def _streamed(self) -> list[int]:
        """Bytes of the blocks that are streamed."""
        saved = self.measured.parts["denoiser"].bytes - self._weights
        each = saved // max(1, len(self.measured.blocks))
        blocks = [size - each for size in self.measured.blocks]
        return blocks[: min(self.memory.streamed(len(blocks)), len(blocks))]

    @property
    def _away(self) -> int:
        return sum(self._streamed)

    @property
    def _ring(self) -> int:
        return RING * max(self._streamed, default=0)

    @property
    def _unpacked(self) -> int:
        """The largest of the weights that are stored in few bits, as it is computed with."""
        linears = self.measured.linears if self.memory.base else ()
        return max((each.numbers * each.bytes for each in linears), default=0)


def packed(linear: Linear, base: str) -> int:
    """Bytes of a weight in few bits, with its scales."""
    if base == "nf4":
        return linear.numbers // 2 + SCALE * linear.numbers // GROUP
    return linear.numbers + SCALE * linear.rows


def _passes(stage: Stage) -> int:
    """Backwards of a step, at the most."""
    each = [len(branch.data) for branch in stage.branch.values()]
    return stage.accumulate * (max(each) if stage.select == "one" else sum(each))
