"""Seconds and memory of training steps of a recipe, beside those of a reference-style loop.

    python -m benchmarks.training_step jointtuner_cogvideox5b --layers 1 --steps 1
    python -m benchmarks.training_step jointtuner_cogvideox5b --videos 9x240x360 49x480x720

On random weights of the true size. Latents and captions are drawn in the shapes that the recipe's
data have, so that neither encoder is run; everything else is the trainer's own step. Branch by
branch: steps of pictures and of clips cost what has nothing to do with each other. Steps of both
loops are taken in turn on one denoiser; `--alone` leaves the reference out, as recipes of other
adapters than GLoRA do. Memory is what a step takes at its peak beside weights and optimizer, as
the GPU's allocator says, or on a CPU as the tensors between operations add up.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from attrs import evolve
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.compare import peak_bytes, ratios, time_all, wait
from benchmarks.reference_step import ReferenceLoop
from benchmarks.report import report
from jtcore.check import precision_problems
from jtcore.data import Data
from jtcore.engine import Engine
from jtcore.model import load_model
from jtcore.planner.flops import flops_of
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, Stage, build_recipe
from jtcore.run import Run
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
    with report("training_step", given.out, given.recipe) as say:
        say("| branch | latents | what | first step | others | over ours | peak memory | TFLOP/s |")
        say("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for video in given.videos or [None]:
            recipe = read(given.recipe, given.layers, given.set, video)
            trainer = make_trainer(recipe)
            for name, stage in recipe.stage.items():
                for row in rows(trainer, name, stage, given.steps, given.alone):
                    say(row)


def rows(trainer: Trainer, name: str, stage: Stage, steps: int, alone: bool) -> Iterator[str]:
    """A line of the table for each branch of a stage and each loop."""
    memory, device = trainer.recipe.engine.memory, trainer.model.engine.device
    parameters = {each: list(trainer.model.adapters[each].parameters()) for each in stage.trained}
    optimizer = trainer.hook.jt_make_optimizer(stage=stage, parameters=parameters, memory=memory)
    (adapter, *more) = stage.trained
    compared = not alone and not more and trainer.recipe.adapter[adapter].kind == "glora"
    reference = ReferenceLoop(trainer, adapter) if compared else None
    for branch, settings in stage.branch.items():
        only = evolve(stage, branch={branch: evolve(settings, chance=1.0)})
        works = {"ours": partial(trainer.train_step, only, Step(name, 0, steps, 0), optimizer)}
        source = settings.data[0]
        if reference:
            part = trainer.streams[source].part(
                (0,), 0, torch.Generator().manual_seed(0), trainer.model.texts
            )
            works["reference-style"] = partial(reference.step, part)
        shape = tuple(trainer.streams[source].items[0].latents.shape[1:])
        yield from _compared(f"{name}.{branch} | {shape}", works, steps, device)


def _compared(
    place: str, works: dict[str, Callable], steps: int, device: torch.device
) -> Iterator[str]:
    first = {name: once(work, device) for name, work in works.items()}
    found = {name: memory_and_flops(work, device) for name, work in works.items()}
    taken = time_all(works, steps, device, warm=True)
    over = ratios(taken, "ours")
    for name, (peak, operations) in found.items():
        seconds = median(taken[name])
        yield (
            f"| {place} | {name} | {first[name]:.3g} s | {seconds:.3g} s | {over[name]:.2f}"
            f" | {peak / 2**30:.2f} GiB | {operations / seconds / 1e12:.3g} |"
        )


def once(work: Callable, device: torch.device) -> float:
    wait(device)
    began = perf_counter()
    work()
    wait(device)
    return perf_counter() - began


def memory_and_flops(work: Callable, device: torch.device) -> tuple[int, float]:
    """Bytes, and operations with those that checkpointing computes again."""
    with _Operations() as operations:
        peak = peak_bytes(work, device)
    return peak, operations.count


class _Operations(TorchDispatchMode):
    count = 0.0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        self.count += flops_of(func, args, kwargs or {}, answer)
        return answer


def read(
    name: str, layers: int | None, settings: Sequence[str], video: str | None = None
) -> Recipe:
    """The recipe on random weights of its own configuration; its clips are of another size where
    `video` says FRAMESxHEIGHTxWIDTH."""
    table = read_table(find_recipe(name))
    published = table["backbone"]
    if published.get("weights") not in SIZES:
        raise SystemExit(f"{name}: no size is known of its weights, but of {', '.join(SIZES)}")
    size = SIZES[published["weights"]] | ({"layers": layers} if layers else {})
    table["backbone"] = {"kind": published["kind"], "weights": "random", **size}
    if video:
        frames, *size = map(int, video.split("x"))
        for data in table["data"].values():
            if data.get("frames", 1) > 1:
                data |= {"frames": frames, "size": size}
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
    nowhere = Run(Path(), lambda line: None)
    return Trainer(recipe, hook, nowhere, model, streams, lambda: False)


def draw_item(data: Data, spec: BackboneSpec, rng: torch.Generator) -> Item:
    shape = spec.latent_shape(data.frames, *data.size)
    return Item(CAPTION, torch.randn(1, *shape, generator=rng), None)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step")
    parser.add_argument("recipe", help="its name, or its file")
    parser.add_argument("--layers", type=int, help="blocks of the denoiser; all unless said")
    parser.add_argument("--steps", type=int, default=10, help="of each branch")
    parser.add_argument("--videos", nargs="+", metavar="FRAMESxHEIGHTxWIDTH", help="sizes of clips")
    parser.add_argument("--alone", action="store_true", help="without the reference-style loop")
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
