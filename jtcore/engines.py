"""Which engine a recipe asks for, and what keeps it from working."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from jtcore.engine import Engine
from jtcore.processes import ALONE, Processes, place_of
from jtcore.settings import EngineSettings


def make_engine(settings: EngineSettings, processes: Processes = ALONE) -> Engine:
    """For these processes. DeepSpeed is imported where it is asked for, and nowhere else."""
    if settings.kind == "ddp":
        from jtcore.averaging import AveragingEngine

        return AveragingEngine(settings, processes)
    if settings.kind == "deepspeed":
        from jtcore.zero import ZeroEngine

        return ZeroEngine(settings, processes)
    return Engine(settings, processes)


def engine_problems(settings: EngineSettings) -> Iterator[str]:
    """What cannot be asked for together, or not here: each with its path."""
    size = place_of(os.environ).size
    if settings.kind == "plain" and size > 1:
        yield (
            f'engine.kind: "plain" is for one process, and the launcher has started {size}; take'
            ' "ddp" or "deepspeed", or start it without a launcher'
        )
    if settings.kind == "deepspeed":
        if find_spec("deepspeed") is None:
            yield 'engine.kind: "deepspeed" is not installed; pip install jtcore[deepspeed]'
        yield from _deepspeed_problems(settings)


def _deepspeed_problems(settings: EngineSettings) -> Iterator[str]:
    memory, options = settings.memory, settings.deepspeed
    if getattr(memory, "optimizer", None):
        yield (
            "engine.memory.optimizer: DeepSpeed divides the optimizer's state as it is; leave it"
            " out, or take engine.deepspeed.offload_optimizer"
        )
    if options is None or options.stage < 3:
        return
    for option in ("stream_blocks", "base"):
        if getattr(memory, option, None):
            yield (
                f"engine.memory.{option}: engine.deepspeed.stage = 3 divides the frozen weights"
                f" that it would {'move' if option == 'stream_blocks' else 'store in fewer bits'};"
                " take one of them"
            )
