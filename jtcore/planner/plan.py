"""A plan: everything that a recipe needs, whether it fits, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from attrs import asdict, evolve, frozen

from jtcore.check import checkpointing_problems, sampled_shape_problems
from jtcore.data import captions, reference_files, shape_problems
from jtcore.engines import divided_weights_problems
from jtcore.errors import JtError
from jtcore.planner.estimate import Estimate, estimate
from jtcore.planner.measure import Measured, Part, checkpointed, measure
from jtcore.planner.networks import offline
from jtcore.planner.runs import Pass
from jtcore.planner.search import Proposal, Search, slow_down
from jtcore.recipe import Recipe

STORED = 2  # bytes of a weight on the hub, mostly
LATENT = 4  # bytes of a number in the cache
VIDEO = 0.12  # bytes of a pixel in a written video, about


@frozen
class Step:
    """What one pass of training computes"""

    place: str
    latents: tuple[int, ...]
    forward: float  # floating point operations
    recompute: float
    backward: float
    chance: float
    seconds: float


@frozen
class Plan:
    """What `jt-plan` tells; sizes are in bytes"""

    parts: Mapping[str, Part]
    adapters: Mapping[str, Part]
    trained: Mapping[str, int]  # numbers, by stage
    estimate: Estimate
    steps: tuple[Step, ...]
    sampling: Step | None  # one forward of a batch of samples
    disk: Mapping[str, int]
    tflops: float
    room: int | None
    fits: bool | None
    proposals: tuple[Proposal, ...]

    def table(self) -> dict[str, Any]:
        """For programs: what has no number is null; sizes are in bytes, and shares in parts of 1.

        `parts`, `adapters`: by name, {parameters, bytes}; `trained`: numbers, by stage;
        `estimate`: {phases: [{name, causes: {cause: bytes}, allocated, allowance, needed}],
        host: {what: bytes}}; `steps`, one for each pass: [{place, latents: [B, C, F, H, W],
        forward, recompute, backward: operations, chance, seconds}]; `sampling`, the same of a
        forward of sampling, or null; `disk`: {what: bytes}; `tflops`, as given; `room`, of the
        card; `fits`; `proposals`, the least loss of speed first: [{settings: [as `--set` takes
        them], exact, needed, slower: times as long}]; `worst`: the phase that needs most; `needed`
        by it; `margin`: what is left of the card, or below 0.
        """
        found = asdict(self)
        for phase, one in zip(found["estimate"]["phases"], self.estimate.phases, strict=True):
            phase |= {"allocated": one.allocated, "allowance": one.allowance}
            phase["needed"] = one.needed
        found["worst"] = self.estimate.worst.name
        found["needed"] = self.estimate.worst.needed
        found["margin"] = None if self.room is None else self.room - self.estimate.worst.needed
        return found


def make_plan(recipe: Recipe, room: int | None, speed: float, processes: int) -> Plan:
    """For a card with `room` bytes, if any, that computes with `speed` operations a second. Raises
    JtError."""
    spec = offline(recipe.backbone.spec)
    recipe = evolve(recipe, backbone=evolve(recipe.backbone, spec=spec))
    if problems := list(_problems(recipe)):
        raise JtError(problems)
    gpu = recipe.engine.device != "cpu"
    measured = measure(recipe, gpu)
    found = estimate(recipe, measured, recipe.engine.memory, processes)
    fits = None if room is None else found.worst.needed <= room
    slower = slow_down(recipe, measured, recipe.engine.memory, speed)
    proposals = ()
    if room is not None:
        other = None if fits else checkpointed(recipe, measured, gpu)
        search = Search(recipe, measured, other, room, speed, processes)
        proposals = search.faster() if fits else search.fitting()
    kept = _kept_share(recipe, measured)
    steps = [
        _step(one, kept, speed / slower) for passes in measured.passes.values() for one in passes
    ]
    trained = {
        name: sum(measured.adapters[each].parameters for each in stage.trained)
        for name, stage in recipe.stage.items()
    }
    return Plan(
        measured.parts,
        measured.adapters,
        trained,
        found,
        tuple(steps),
        measured.sampling and _step(measured.sampling, 0.0, speed),
        _disk(recipe, measured),
        speed / 1e12,
        room,
        fits,
        tuple(proposals),
    )


def _step(one: Pass, kept: float, speed: float) -> Step:
    """`kept` is the share of blocks that are not computed again."""
    recompute = one.work.recompute * (1 - kept)
    forward, backward = one.work.forward, one.work.backward
    seconds = one.work.total / speed
    return Step(one.place, one.latents, forward, recompute, backward, one.chance, seconds)


def seconds(recipe: Recipe, plan: Plan) -> float:
    """Of a run's training and sampling, by its arithmetic alone: what encodes, decodes, measures,
    reads and writes comes on top, and small tensors take longer than their arithmetic."""
    found = 0.0
    for name, stage in recipe.stage.items():
        passes = [step for step in plan.steps if step.place.startswith(f"stage.{name}.")]
        found += stage.steps * sum(step.seconds * step.chance for step in passes)
    if recipe.sample and plan.sampling:
        sample = recipe.sample
        batches = ceil(len(sample.prompts) * len(sample.seeds) / sample.batch)
        models = 1 + bool(recipe.adapter)
        found += models * batches * sample.steps * plan.sampling.seconds
    return found


def _problems(recipe: Recipe) -> Iterator[str]:
    """What a check would tell, of sizes and of options of memory that cannot be together."""
    yield from checkpointing_problems(recipe.engine)
    yield from divided_weights_problems(recipe)
    spec = recipe.backbone.spec
    for name, data in recipe.used_data.items():
        yield from shape_problems(f"data.{name}", data, spec)
    if recipe.sample:
        yield from sampled_shape_problems(recipe.sample, spec)


def _kept_share(recipe: Recipe, measured: Measured) -> float:
    """Of blocks that are not computed again."""
    return min(1.0, recipe.engine.memory.keep_blocks / max(1, len(measured.blocks)))


def _disk(recipe: Recipe, measured: Measured) -> dict[str, int]:
    """Bytes of what is fetched, cached and written."""
    spec = recipe.backbone.spec
    found = {"weights": STORED * sum(part.parameters for part in measured.parts.values())}
    found["cache"] = 0
    for data in recipe.used_data.values():
        shape = spec.latent_shape(data.frames, *data.size)
        files = _count(data)
        numbers = shape[0] * shape[1] * shape[2] * shape[3]
        found["cache"] += LATENT * numbers * files * data.clips * (2 if data.flip else 1)
    length, width = measured.text_shape
    found["cache"] += LATENT * length * width * _captions(recipe)
    adapters = LATENT * sum(part.parameters for part in measured.adapters.values())
    trained = [
        sum(measured.adapters[n].parameters for n in s.trained) for s in recipe.stage.values()
    ]
    copies = 2 + any(stage.ema for stage in recipe.stage.values())
    state = copies * LATENT * max(trained, default=0)
    found["checkpoints"] = recipe.checkpoint.keep * (adapters + state)
    found["adapters"] = adapters
    if recipe.sample:
        videos = 2 * len(recipe.sample.prompts) * len(recipe.sample.seeds)
        height, width = recipe.sample.size
        found["samples"] = int(VIDEO * videos * recipe.sample.frames * height * width)
    return found


def _count(data: Any) -> int:
    """Files of a table; one, where they are not here."""
    try:
        return max(1, len(reference_files(data)))
    except JtError:
        return 1


def _captions(recipe: Recipe) -> int:
    found = set(recipe.sample.captions) if recipe.sample else set()
    for data in recipe.used_data.values():
        try:
            found |= set(captions(data))
        except JtError:
            found.add(data.source)
    return len(found)
