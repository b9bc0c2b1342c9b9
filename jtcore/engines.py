"""Which engine a recipe asks for, and what keeps it from working."""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from jtcore.adapter import Adapter
from jtcore.engine import Engine
from jtcore.processes import ALONE, Processes, place_of
from jtcore.recipe import Recipe
from jtcore.settings import DeepSpeed, EngineSettings


def make_engine(settings: EngineSettings, processes: Processes = ALONE) -> Engine:
    """For these processes. DeepSpeed is imported where it is asked for, and nowhere else."""
    if settings.kind == "ddp":
        from jtcore.averaging import AveragingEngine

        return AveragingEngine(settings, processes)
    if settings.kind == "deepspeed":
        from jtcore.zero.engine import ZeroEngine

        return ZeroEngine(settings, processes)
    return Engine(settings, processes)


def engine_problems(recipe: Recipe) -> Iterator[str]:
    """What cannot be asked for together, or not here: each with its path."""
    settings, size = recipe.engine, place_of(os.environ).size
    if settings.kind == "plain" and size > 1:
        yield (
            f'engine.kind: "plain" is for one process, and the launcher has started {size}; take'
            ' "ddp" or "deepspeed", or start it without a launcher'
        )
    if settings.kind == "deepspeed":
        if find_spec("deepspeed") is None:
            yield 'engine.kind: "deepspeed" is not installed; pip install jtcore[deepspeed]'
        if settings.memory.optimizer:
            yield (
                "engine.memory.optimizer: DeepSpeed divides and moves the optimizer's state itself;"
                " leave it out, or take engine.deepspeed.offload_optimizer"
            )
    yield from divided_weights_problems(recipe)


def reduction_problems(recipe: Recipe, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """Why gradients cannot be reduced while backward runs: what one process has used then waits for
    what another has not."""
    options = recipe.engine.deepspeed or DeepSpeed()
    if recipe.engine.kind != "deepspeed" or options.stage == 1:
        return
    for name, stage in recipe.stage.items():
        trained = {adapter: adapters[adapter] for adapter in stage.trained}
        numbers = sum(adapter.reach.parameters for adapter in trained.values())
        varying = [f"adapter.{adapter}" for adapter, each in trained.items() if each.varies]
        if numbers > options.bucket and varying:
            yield (
                f"engine.deepspeed.bucket: stage.{name} trains {numbers:,} numbers, more than"
                f" {options.bucket:,}, so that gradients are reduced while backward runs, and all"
                " processes have to use the same weights; which of theirs"
                f" {', '.join(varying)} use depends on a batch; take bucket = {numbers} or more"
            )


def divided_weights_problems(recipe: Recipe) -> Iterator[str]:
    """What cannot be where a process has a part of the denoiser's weights."""
    if not (recipe.engine.deepspeed and recipe.engine.deepspeed.stage == 3):
        return
    memory, divided = recipe.engine.memory, "engine.deepspeed.stage = 3"
    if memory.streams:
        option = "stream_blocks" if memory.stream_blocks else "stream_share"
        yield f"engine.memory.{option}: {divided} moves the frozen weights; take one of them"
    if memory.base:
        yield (
            f"engine.memory.base: {divided} divides the frozen weights, and none of few bits; take"
            " stage = 2"
        )
    if recipe.engine.compile:
        yield f"engine.compile: {divided} gathers weights while a block runs; take stage = 2"
    if recipe.sample and recipe.sample.preview:
        yield (
            f"sample.preview: with {divided} no process has the whole denoiser while it trains;"
            " take stage = 2, or leave it out"
        )
    if recipe.validation and recipe.validation.every:
        yield (
            f"validation.every: with {divided} no process has the whole denoiser while it trains;"
            " take stage = 2, or leave it out"
        )
