"""What `jt-plan` predicts against what is needed.

    python -m benchmarks.planner_error            # real steps of small models, on the CPU
    python -m benchmarks.planner_error --published # published peaks of CogVideoX; no weights needed
    python -m benchmarks.planner_error --gpu      # real steps on a GPU, by torch's own count

On a CPU, bytes of a real trainer's second step, optimizer and gradients included, are counted
twice: by the planner's own counter, which sees every operation, and by what PyTorch's allocator
tells its profiler, which knows nothing of ours. The prediction is that of a CPU: what only a GPU
does otherwise is not tested by it.

Published peaks are of memory that PyTorch had reserved, not of what was allocated in it. So the
order in which the planner sees tensors come and go is told to a model of PyTorch's allocator.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from benchmarks.allocator import Allocator, replay
from benchmarks.report import report
from benchmarks.training_step import make_trainer
from jtcore.planner.estimate import GIB, estimate
from jtcore.planner.ledger import Ledger
from jtcore.planner.measure import measure
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.trainer import Trainer
from jtcore.types import Step

Say = Callable[[str], None]
TEXT = (226, 4096)  # L, D
PUBLISHED: Sequence[tuple[str, dict[str, Any], float]] = (  # GiB at the most, on an A100
    ("5B, rank 64", {"config": "5b", "rank": 64}, 20.818),
    ("5B, rank 256", {"config": "5b", "rank": 256}, 22.119),
    ("5B, rank 16, batch 4", {"config": "5b", "rank": 16, "batch": 4}, 46.5),
    ("5B, rank 64, batch 4", {"config": "5b", "rank": 64, "batch": 4}, 47.8),
    ("2B, rank 16, batch 4", {"config": "2b", "rank": 16, "batch": 4}, 21.8),
    ("2B, rank 64, batch 4", {"config": "2b", "rank": 64, "batch": 4}, 22.3),
    ("2B, rank 16, no checkpointing", {"config": "2b", "rank": 16, "checkpointed": False}, 43.8),
    ("2B, rank 64, no checkpointing", {"config": "2b", "rank": 64, "checkpointed": False}, 44.3),
    ("2B, rank 256, no checkpointing", {"config": "2b", "rank": 256, "checkpointed": False}, 45.8),
)
CASES: Mapping[str, dict[str, Any]] = {
    "pocket": {"backbone": "pocket"},
    "pocket, batch 4": {"backbone": "pocket", "batch": 4},
    "pocket, bf16": {"backbone": "pocket", "precision": "bf16"},
    "pocket, checkpointed": {"backbone": "pocket", "checkpointed": True},
    "pocket, GLoRA": {"backbone": "pocket", "kind": "glora"},
    "pocket, GLoRA, checkpointed, bf16, batch 8": {
        "backbone": "pocket",
        "kind": "glora",
        "checkpointed": True,
        "precision": "bf16",
        "batch": 8,
    },
    "pocket, two branches": {"backbone": "pocket", "branches": 2},
    "UNet of 32 channels": {"backbone": "zeroscope"},
    "UNet of 32 channels, checkpointed": {"backbone": "zeroscope", "checkpointed": True},
    "4 blocks as CogVideoX-2B's": {"backbone": "cogvideox"},
    "4 blocks as CogVideoX-2B's, checkpointed, batch 2": {
        "backbone": "cogvideox",
        "checkpointed": True,
        "batch": 2,
    },
    "4 blocks as CogVideoX-2B's, checkpointed, GLoRA, bf16": {
        "backbone": "cogvideox",
        "kind": "glora",
        "checkpointed": True,
        "precision": "bf16",
    },
    "4 blocks as CogVideoX-2B's, one of them kept": {
        "backbone": "cogvideox",
        "checkpointed": True,
        "memory": {"keep_blocks": 1},
    },
    "4 blocks as CogVideoX-2B's, int8, Adam in 8 bits": {
        "backbone": "cogvideox",
        "checkpointed": True,
        "memory": {"base": "int8", "optimizer": "8bit"},
    },
    "4 blocks as Wan-1.3B's, checkpointed": {"backbone": "wan", "checkpointed": True},
}


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    if given.published:
        about = (
            "LoRA on attention, 49x480x720, AdamW, in GiB; published: peaks in the README of"
            " cogvideox-factory, on an A100"
        )
        with report("planner_error_published", given.out, about) as say:
            published(say, given.only)
    else:
        about = "Peaks of a step, in GiB, or of a GPU's memory in it"
        with report("planner_error", given.out, about) as say:
            measured(say, given.gpu, given.only)


def published(say: Say, only: str) -> None:
    """Those that its own encoders hide are left out."""
    say("| what | allocated | reserved | published | error | least | over allocated |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    for what, options, found in PUBLISHED:
        if only in what:
            recipe = published_recipe(**options)
            allocated = predicted_peak(recipe, gpu=True) / GIB
            fixed, growing = Allocator(), Allocator(expandable=True)
            replay(recipe, (fixed, growing), TEXT)
            reserved, least = fixed.reserved / GIB, growing.least / GIB
            say(
                f"| {what} | {allocated:.2f} | {reserved:.2f} | {found:.1f}"
                f" | {reserved / found - 1:+.1%} | {least:.2f} | {least / allocated - 1:+.1%} |"
            )


def published_recipe(
    config: str,
    rank: int,
    batch: int = 1,
    checkpointed: bool = True,
    frames: int = 49,
    layers: int | None = None,
) -> Recipe:
    backbone = {"kind": "cogvideox", "weights": "random", "config": config}
    backbone |= {"layers": layers} if layers else {}
    engine = {"precision": "bf16" if config == "5b" else "fp16"}
    data = {"frames": frames, "size": [480, 720], "batch": batch}
    return _recipe(backbone, data, "lora", rank, engine, checkpointed)


def measured(say: Say, gpu: bool, only: str) -> None:
    counters = ["found by torch"] if gpu else ["found by the ledger", "by torch's profiler"]
    say(f"| what | predicted | {' | '.join(f'{each} | error' for each in counters)} |")
    say("| --- | --- |" + " --- | --- |" * len(counters))
    for what, options in CASES.items():
        if only in what:
            recipe = small_recipe(**options)
            if gpu:
                recipe = evolve(recipe, engine=evolve(recipe.engine, device="cuda"))
            predicted = predicted_peak(recipe, gpu)
            found = [gpu_peak(recipe)] if gpu else [ledger_peak(recipe), profiler_peak(recipe)]
            cells = [f"{each / GIB:.4g} | {predicted / each - 1:+.1%}" for each in found]
            say(f"| {what} | {predicted / GIB:.4g} | {' | '.join(cells)} |")


def predicted_peak(recipe: Recipe, gpu: bool) -> int:
    """Bytes that a step has allocated at the most."""
    predicted = estimate(recipe, measure(recipe, gpu), recipe.engine.memory)
    return max(e.allocated for e in predicted.phases if e.name.startswith(("train", "update")))


def small_recipe(
    backbone: str,
    kind: str = "lora",
    batch: int = 1,
    precision: str = "fp32",
    checkpointed: bool = False,
    branches: int = 1,
    memory: Mapping[str, Any] | None = None,
) -> Recipe:
    options = {"kind": backbone, "weights": "random"}
    data = {"frames": 8, "size": [24, 24]}
    if backbone == "zeroscope":
        options |= {"width": 32}
        data = {"frames": 4, "size": [64, 64]}
    elif backbone != "pocket":  # blocks as wide as published ones
        options |= {"layers": 4}
        data = {"frames": 9, "size": [160, 240]}
    engine = {"precision": precision, "device": "cpu", "memory": dict(memory or {})}
    return _recipe(options, data | {"batch": batch}, kind, 8, engine, checkpointed, branches)


def ledger_peak(recipe: Recipe) -> int:
    """Bytes at the most of a real step, after one that has made the optimizer's state."""
    ledger, trainer = Ledger(), make_trainer(recipe)
    step = stepping(trainer)
    for tensor in _resident(trainer):
        ledger.add(tensor)
    with ledger:
        for index in range(2):
            step(index)
    return ledger.highest


def profiler_peak(recipe: Recipe) -> int:
    """The same by the allocator's own events."""
    trainer = make_trainer(recipe)
    step = stepping(trainer)
    step(0)
    step.optimizer.zero_grad()
    kept = [each for entries in step.optimizer.state.values() for each in entries.values()]
    state = [each for each in kept if isinstance(each, Tensor)]
    now = sum(tensor.nbytes for tensor in {*_resident(trainer), *state})
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(1)
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    assert changes, "the profiler tells of no memory"
    return now + max(accumulate(change for _, change in changes))


def gpu_peak(recipe: Recipe) -> int:
    step = stepping(make_trainer(recipe))
    for index in range(2):
        torch.cuda.reset_peak_memory_stats()
        step(index)
    return torch.cuda.max_memory_allocated()


@frozen(eq=False)
class Stepping:
    """Runs steps of a trainer's only stage"""

    trainer: Trainer
    name: str
    optimizer: Optimizer

    def __call__(self, index: int) -> None:
        stage = self.trainer.recipe.stage[self.name]
        self.trainer.train_step(stage, Step(self.name, index, 2, index), self.optimizer)


def stepping(trainer: Trainer) -> Stepping:
    ((name, stage),) = trainer.recipe.stage.items()
    parameters = {n: list(trainer.model.adapters[n].parameters()) for n in stage.trained}
    memory = trainer.recipe.engine.memory
    make = trainer.hook.jt_make_optimizer
    return Stepping(trainer, name, make(stage=stage, parameters=parameters, memory=memory))


def _resident(trainer: Trainer) -> Iterator[Tensor]:
    for module in (trainer.model.backbone.denoiser, *trainer.model.adapters.values()):
        yield from module.parameters()
        yield from module.buffers()


def _recipe(
    backbone: dict[str, Any],
    data: dict[str, Any],
    kind: str,
    rank: int,
    engine: dict[str, Any],
    checkpointed: bool,
    branches: int = 1,
) -> Recipe:
    branch = {"data": ["clips"], "adapters": ["one"], "losses": {"all": {"kind": "diffusion"}}}
    table = {
        "backbone": backbone,
        "engine": engine | {"gradient_checkpointing": checkpointed},
        "data": {"clips": {"source": "nowhere", "prompt": "a caption", **data}},
        "adapter": {"one": {"kind": kind, "targets": "attention", "rank": rank}},
        "stage": {
            "one": {
                "steps": 1,
                "lr": 1e-4,
                "branch": {f"branch{number}": branch for number in range(branches)},
            }
        },
    }
    return build_recipe(table, load_plugins())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner_error")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--only", default="", help="rows that have this in their name")
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
