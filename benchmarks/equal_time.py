"""How many steps each variant of a grid trains in the time that one of them takes.

    python -m benchmarks.equal_time ablations/methods_pocket.toml --like jointtuner

Real steps on the recipes' real data, a few of each stage in turn, round after round, so that a
noisy machine is noisy for all. Time is that of the processor: with `engine.threads = 1` and
nobody else about, it is what a clock on the wall shows. Printed is a table, and the tables of a
grid in which every variant has as much time.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from time import process_time

from attrs import Factory, frozen
from torch.optim import Optimizer

from jtcore.engine import Engine
from jtcore.experiment import prepare
from jtcore.grids.grid import variants
from jtcore.model import load_model
from jtcore.plugins import load_plugins
from jtcore.recipe import Stage, build_recipe
from jtcore.run import Run
from jtcore.signals import Stop
from jtcore.tables import read_table
from jtcore.trainer import Trainer
from jtcore.types import Step


@frozen(eq=False)
class Timed:
    """A stage whose steps are run now and then."""

    trainer: Trainer
    name: str
    stage: Stage
    optimizer: Optimizer
    rounds: list[float] = Factory(list)  # processor seconds of a step, a mean for each round

    def run(self, steps: int) -> None:
        first = len(self.rounds) * steps
        began = process_time()
        for index in range(first, first + steps):
            self.trainer.train_step(self.stage, self._step(index), self.optimizer)
        self.rounds.append((process_time() - began) / steps)

    def _step(self, index: int) -> Step:
        return Step(self.name, index, self.stage.steps, index)

    @property
    def seconds(self) -> float:  # of a step
        return median(self.rounds[1:] or self.rounds)  # the first warms up

    @property
    def whole(self) -> float:  # seconds of the stage
        return self.seconds * self.stage.steps


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        timed = load(given.ablation, Path(folder))
        if given.like not in timed:
            raise SystemExit(f"--like {given.like}: expected one of {', '.join(timed)}")
        for _ in range(given.rounds):
            for stages in timed.values():
                for stage in stages:
                    stage.run(given.steps)
    print("\n".join([*table(timed), "", *grid(timed, given.like)]))


def load(ablation: Path, folder: Path) -> dict[str, list[Timed]]:
    """The stages of every variant, with models and data of their own."""
    plugins = load_plugins()
    found = {}
    for name, told in variants(read_table(ablation)).items():
        recipe = build_recipe(told, plugins)
        engine, run = Engine(recipe.engine), Run(folder, lambda line: None)
        materials = prepare(recipe, engine, run, Stop())
        texts, pictures = materials.texts, materials.pictures
        model = load_model(recipe.backbone, recipe.adapter, texts, engine, recipe.seed, pictures)
        trainer = Trainer(recipe, plugins.hook, run, model, materials.streams, lambda: False)
        found[name] = [_timed(trainer, each, stage) for each, stage in recipe.stage.items()]
    return found


def _timed(trainer: Trainer, name: str, stage: Stage) -> Timed:
    trained = {each: list(trainer.model.adapters[each].parameters()) for each in stage.trained}
    memory = trainer.recipe.engine.memory
    optimizer = trainer.hook.jt_make_optimizer(stage=stage, parameters=trained, memory=memory)
    return Timed(trainer, name, stage, optimizer)


def table(timed: Mapping[str, Sequence[Timed]]) -> list[str]:
    rows = ["| variant | stage | steps | milliseconds a step | seconds |", "|" + " --- |" * 5]
    for name, stages in timed.items():
        for each in stages:
            told = f"{each.stage.steps} | {1000 * each.seconds:.1f} | {each.whole:.1f}"
            rows.append(f"| {name} | {each.name} | {told} |")
    mean = fmean(sum(each.whole for each in stages) for stages in timed.values())
    return [*rows, f"| all, on the average | | | | {mean:.1f} |"]


def grid(timed: Mapping[str, Sequence[Timed]], like: str) -> list[str]:
    """The steps, and what is counted in steps, of each variant in the time of one of them."""
    budget = sum(each.whole for each in timed[like])
    lines = []
    for name, stages in timed.items():
        factor = budget / sum(each.whole for each in stages)
        lines += ["", f"[variant.{name}]"]
        for each in stages:
            lines.append(f"stage.{each.name}.steps = {round(factor * each.stage.steps)}")
            if each.stage.warmup:
                lines.append(f"stage.{each.name}.warmup = {round(factor * each.stage.warmup)}")
    return lines


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal_time")
    parser.add_argument("ablation", type=Path, help="a file of variants")
    parser.add_argument("--like", required=True, metavar="VARIANT", help="whose time all have")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of each stage in each round")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
