"""Seconds and memory of training steps of a recipe, on random weights of the true size.

    python -m benchmarks.training_step jointtuner_cogvideox5b --layers 1 --steps 1

Latents and captions are drawn in the shapes that the recipe's data have, so that neither encoder
is run; everything else is the trainer's own step. Branch by branch: steps of pictures and of clips
cost what has nothing to do with each other. Memory is the process's peak, or the GPU's.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from attrs import evolve

from jtcore.check import precision_problems
from jtcore.data import Data
from jtcore.engine import Engine
from jtcore.model import load_model
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, Stage, build_recipe
from jtcore.stream import Item, Stream
from jtcore.tables import change, find_recipe, read_table
from jtcore.trainer import Trainer
from jtcore.types import BackboneSpec, Step

CAPTION = "a caption"
SIZES = {  # what random weights have to be told to be as large as published ones
    "THUDM/CogVideoX-2b": {"config": "2b"},
    "THUDM/CogVideoX-5b": {"config": "5b"},
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"config": "1.3b"},
    "cerspense/zeroscope_v2_576w": {},
    "damo-vilab/text-to-video-ms-1.7b": {},
}


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    recipe = read(given.recipe, given.layers, given.set)
    trainer = make_trainer(recipe)
    device, threads = trainer.model.engine.device, torch.get_num_threads()
    print(f"{device}, {threads} threads, torch {torch.__version__}")
    print(f"{given.recipe}, {given.layers or 'all'} layers, {recipe.engine.precision}\n")
    print("| branch | latents | first step | median of the others | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    for name, stage in recipe.stage.items():
        for row in rows(trainer, name, stage, given.steps):
            print(row, flush=True)


def rows(trainer: Trainer, name: str, stage: Stage, steps: int) -> Iterator[str]:
    """A line of the table for each branch of a stage."""
    parameters = {each: list(trainer.model.adapters[each].parameters()) for each in stage.trained}
    optimizer = trainer.hook.jt_make_optimizer(stage=stage, parameters=parameters)
    for branch, settings in stage.branch.items():
        forget_peak_memory(trainer.model.engine.device)
        alone = evolve(stage, branch={branch: evolve(settings, chance=1.0)})
        first, *others = time_steps(trainer, name, alone, optimizer, steps)
        shapes = {tuple(trainer.streams[data].items[0].latents.shape[1:]) for data in settings.data}
        told = f"{median(others):.3g} s" if others else ""
        memory = peak_memory(trainer.model.engine.device) / 2**30
        yield f"| {name}.{branch} | {shapes} | {first:.3g} s | {told} | {memory:.2f} GiB |"


def read(name: str, layers: int | None, settings: Sequence[str]) -> Recipe:
    """The recipe on random weights of its own configuration."""
    table = read_table(find_recipe(name))
    published = table["backbone"]
    if published.get("weights") not in SIZES:
        raise SystemExit(f"{name}: no size is known of its weights, but of {', '.join(SIZES)}")
    size = SIZES[published["weights"]] | ({"layers": layers} if layers else {})
    table["backbone"] = {"kind": published["kind"], "weights": "random", **size}
    recipe = build_recipe(change(table, settings), load_plugins())
    if problems := list(precision_problems(recipe.backbone.spec, recipe.engine)):
        raise SystemExit("\n".join(problems))
    return recipe


def make_trainer(recipe: Recipe) -> Trainer:
    """With drawn data; it has no run, for it is only asked for steps."""
    engine, spec = Engine(recipe.engine), recipe.backbone.spec
    rng = torch.Generator().manual_seed(0)
    text = spec.load_text_encoder(torch.device("cpu")).embed([CAPTION])[0]
    streams = {
        name: Stream(name, [draw_item(data, spec, rng)], data.batch, engine.device)
        for name, data in recipe.used_data.items()
    }
    model = load_model(recipe.backbone, recipe.adapter, {CAPTION: text}, engine, recipe.seed)
    hook = load_plugins().hook
    return Trainer(recipe, hook, None, model, streams, lambda: False)


def draw_item(data: Data, spec: BackboneSpec, rng: torch.Generator) -> Item:
    shape = spec.latent_shape(data.frames, *data.size)
    return Item(CAPTION, torch.randn(1, *shape, generator=rng), None)


def time_steps(
    trainer: Trainer, name: str, stage: Stage, optimizer: torch.optim.Optimizer, steps: int
) -> list[float]:
    found = []
    for index in range(steps):
        scalars = trainer.train_step(stage, Step(name, index, steps, index), optimizer)
        found.append(scalars[f"stage.{name}.step_seconds"])
    return found


def forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:  # bytes
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step")
    parser.add_argument("recipe", help="its name, or its file")
    parser.add_argument("--layers", type=int, help="blocks of the denoiser; all unless said")
    parser.add_argument("--steps", type=int, default=10, help="of each branch")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
