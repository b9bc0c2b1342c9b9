"""What `jt-plan` predicts against what is needed.

    python -m benchmarks.planner_error            # real steps of small models, counted on the CPU
    python -m benchmarks.planner_error --published # published peaks of CogVideoX; no weights needed
    python -m benchmarks.planner_error --gpu      # real steps on a GPU, by torch's own count

The CPU's count is of live bytes of a real trainer's step, optimizer and gradients included, by a
counter that sees every operation. The prediction is that of a CPU: what only a GPU does otherwise
is not tested by it.
"""

import argparse
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from attrs import evolve, frozen

from benchmarks.training_step import make_trainer
from jtcore.planner.estimate import GIB, estimate
from jtcore.planner.ledger import Ledger
from jtcore.planner.measure import measure
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.types import Step

CLIP = {"frames": 49, "size": [480, 720]}
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
SMALL = {"frames": 9, "size": [64, 96]}
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
}


@frozen
class Row:
    """A prediction and what it is of, in GiB"""

    what: str
    predicted: float
    found: float

    def __str__(self) -> str:
        error = self.predicted / self.found - 1
        return f"| {self.what} | {self.predicted:.4g} | {self.found:.4g} | {error:+.1%} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner_error")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args(arguments)
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, torch", end=" ")
    print(f"{torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| what | predicted, GiB | found, GiB | error |")
    print("| --- | --- | --- | --- |")
    for row in published() if given.published else measured(given.gpu):
        print(row, flush=True)


def published() -> Iterator[Row]:
    """Peaks of cogvideox-factory's LoRA training, as its README has them: AdamW, bf16 (2B: fp16),
    attention alone; those that its own encoders hide are left out."""
    for what, options, found in PUBLISHED:
        recipe = published_recipe(**options)
        predicted = estimate(recipe, measure(recipe, True), recipe.engine.memory)
        told = [each for each in predicted.phases if each.name.startswith(("train", "update"))]
        yield Row(what, max(each.allocated for each in told) / GIB, found)
        yield Row(f"{what}: with the allowance", max(each.needed for each in told) / GIB, found)


def published_recipe(config: str, rank: int, batch: int = 1, checkpointed: bool = True) -> Recipe:
    backbone = {"kind": "cogvideox", "weights": "random", "config": config}
    engine = {"precision": "bf16" if config == "5b" else "fp16"}
    return _recipe(backbone, CLIP | {"batch": batch}, "lora", rank, engine, checkpointed)


def measured(gpu: bool) -> Iterator[Row]:
    for what, options in CASES.items():
        recipe = small_recipe(**options)
        if gpu:
            recipe = evolve(recipe, engine=evolve(recipe.engine, device="cuda"))
        predicted = estimate(recipe, measure(recipe, gpu), recipe.engine.memory)
        told = [each for each in predicted.phases if each.name.startswith(("train", "update"))]
        yield Row(what, max(each.allocated for each in told) / GIB, real_peak(recipe, gpu) / GIB)


def small_recipe(
    backbone: str,
    kind: str = "lora",
    batch: int = 1,
    precision: str = "fp32",
    checkpointed: bool = False,
    branches: int = 1,
) -> Recipe:
    options = {"kind": backbone, "weights": "random"}
    data = {"frames": 8, "size": [24, 24]}
    if backbone == "zeroscope":
        options |= {"width": 32}
        data = {"frames": 4, "size": [64, 64]}
    engine = {"precision": precision, "device": "cpu"}
    return _recipe(options, data | {"batch": batch}, kind, 8, engine, checkpointed, branches)


def real_peak(recipe: Recipe, gpu: bool) -> int:
    """Bytes at the most of a real step, after one that has made the optimizer's state."""
    trainer = make_trainer(recipe)
    name, stage = next(iter(recipe.stage.items()))
    adapters = trainer.model.adapters
    parameters = {each: list(adapters[each].parameters()) for each in stage.trained}
    memory = recipe.engine.memory
    optimizer = trainer.hook.jt_make_optimizer(stage=stage, parameters=parameters, memory=memory)
    ledger = Ledger()
    for module in (trainer.model.backbone.denoiser, *adapters.values()):
        for tensor in (*module.parameters(), *module.buffers()):
            ledger.add(tensor)
    if not gpu:
        with ledger:
            for index in range(2):
                trainer.train_step(stage, Step(name, index, 2, index), optimizer)
        return ledger.highest
    for index in range(2):
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(stage, Step(name, index, 2, index), optimizer)
    return torch.cuda.max_memory_allocated()


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


if __name__ == "__main__":
    main()
