"""What Adam's moments in 8 bits cost in exactness: a recipe of pocket, trained to its end with them
and with 32 bits, from the same seeds.

    python -m benchmarks.optimizer_error --out benchmarks/results
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, product
from math import nan
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

import torch
from attrs import frozen
from safetensors.torch import load_file

from benchmarks.report import report
from jtcore import cli
from jtcore.optimizers import SMALL
from jtplugins.pocket.cli import main as jt_pocket

Tensors = dict[str, torch.Tensor]


@frozen(eq=False)
class Trained:
    """What a run has come to"""

    adapter: Tensors
    losses: dict[str, float]  # on held-out files, by data
    base: dict[str, float]  # the same without the adapter

    @property
    def loss(self) -> float:
        return fmean(self.losses.values())

    @property
    def gain(self) -> float:
        """What training has taken off the loss."""
        return fmean(self.base.values()) - self.loss


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    seeds = ", ".join(map(str, given.seeds))
    steps = "the recipe's steps" if given.steps is None else f"{given.steps} steps"
    about = (
        f"{given.recipe}, {steps}, seeds {seeds}: means, ± standard errors, runs of a seed paired."
        f" Tensors of fewer than {SMALL:,} numbers keep 32 bits. Beside it, how far runs of 32 bits"
        " from two seeds are from each other."
    )
    with report("optimizer_error", given.out, about) as say, _task():
        say("| rank | in 8 bits | held-out loss | its change | that of its gain | seeds' change |")
        say("| --- | --- | --- | --- | --- | --- |")
        told = ["| rank | adapter's difference | of weights that begin at 0 | seeds' |"]
        told.append("| --- | --- | --- | --- |")
        work = list(product(given.ranks, (None, "8bit"), given.seeds))
        with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
            runs = pool.map(partial(train, given.recipe, given.steps), *zip(*work, strict=True))
            found = dict(zip(work, runs, strict=True))
        for rank in given.ranks:
            plain, few = (
                [found[rank, kept, seed] for seed in given.seeds] for kept in (None, "8bit")
            )
            say(loss_row(rank, plain, few))
            told.append(weights_row(rank, plain, few))
        for line in ("", *told):
            say(line)


def train(recipe: str, steps: int | None, rank: int, kept: str | None, seed: int) -> Trained:
    """Run a recipe's training and validation."""
    changes = [f"adapter.joint.rank={rank}", f"seed={seed}", "sample=false", "metric=false"]
    changes += [f"stage.joint.steps={steps}"] if steps else []
    changes += [f"engine.memory.optimizer={kept}"] if kept else []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        given = [part for each in changes for part in ("--set", each)]
        if status := cli.run([recipe, *given, "--quiet", "--out", str(run)]):
            raise SystemExit(status)
        found = json.loads((run / "metrics.json").read_text())["validation"]
        adapter = load_file(run / "adapters/joint.safetensors")
    losses, base = (
        {name: one[which] for name, one in found.items()} for which in ("adapted", "base")
    )
    return Trained(adapter, losses, base)


def loss_row(rank: int, plain: Sequence[Trained], few: Sequence[Trained]) -> str:
    tensors = plain[0].adapter.values()
    packed = sum(t.numel() for t in tensors if t.numel() >= SMALL) / sum(t.numel() for t in tensors)
    changes = [other.loss / one.loss - 1 for one, other in zip(plain, few, strict=True)]
    gains = [other.gain / one.gain - 1 for one, other in zip(plain, few, strict=True)]
    losses = [one.loss for one in plain]
    between = stdev(losses) / fmean(losses) if len(losses) > 1 else nan
    return (
        f"| {rank} | {packed:.0%} | {fmean(losses):.4f} | {_mean(changes)} | {_mean(gains)}"
        f" | {between:.2%} |"
    )


def weights_row(rank: int, plain: Sequence[Trained], few: Sequence[Trained]) -> str:
    pairs = list(zip(plain, few, strict=True))
    others = list(pairwise(plain))
    cells = [
        _mean([_apart(one.adapter, other.adapter, "") for one, other in pairs]),
        _mean([_apart(one.adapter, other.adapter, "up") for one, other in pairs]),
        _mean([_apart(one.adapter, other.adapter, "up") for one, other in others]),
    ]
    return f"| {rank} | {' | '.join(cells)} |"


def _apart(one: Tensors, other: Tensors, named: str) -> float:
    """|difference| / |weights|, of tensors with a word in their name."""
    names = [name for name in one if named in name]
    difference = sum((one[name] - other[name]).square().sum() for name in names)
    return float((difference / sum(one[name].square().sum() for name in names)).sqrt())


def _mean(found: Sequence[float]) -> str:
    if not found:
        return ""
    error = f" ± {stdev(found) / len(found) ** 0.5:.2%}" if len(found) > 1 else ""
    return f"{fmean(found):+.2%}{error}"


@contextmanager
def _task() -> Iterator[None]:
    """In a folder with the data that pocket's recipes name."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            jt_pocket(["draw", "data/pocket"])
            yield
        finally:
            os.chdir(here)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer_error")
    parser.add_argument("--recipe", default="jointtuner_pocket", help="with an adapter `joint`")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--out", type=Path, help="a folder, in which the table is written too")
    given = parser.parse_args(arguments)
    given.out = given.out and str(given.out.absolute())
    return given


if __name__ == "__main__":
    main()
