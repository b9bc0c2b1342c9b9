"""Pretraining of pocket: images, then videos; seeded, resumable, minutes of a CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from attrs import asdict

from jtcore.errors import Interrupted, JtError
from jtcore.files import write_atomically, write_text
from jtcore.signals import stop_on_signals

from .checkpoint import LossLog, read, unreadable, write
from .models import Pocket, build, load, sample, save
from .plan import Plan
from .showcase import PROMPTS, contact_sheet
from .software import python, versions
from .training import Training, draw_clips, train_step
from .world import FRAMES


def pretrain(
    out: Path,
    seed: int = 0,
    plan: Plan | None = None,
    report: Callable[[str], None] = print,
    every: int = 100,
) -> None:
    """Train into the folder `out`, continuing what is there.

    A step's data and noise are functions of (seed, step), so that a resumed run repeats what the
    uninterrupted one would have done. Checkpoints are written every `every` steps and on SIGTERM
    and SIGINT, after which it raises Interrupted. Raises JtError if `out` holds a run of another
    seed or plan, or a checkpoint that cannot be read.
    """
    plan = plan or Plan()
    out.mkdir(parents=True, exist_ok=True)
    identity = {"seed": seed, "plan": asdict(plan)}
    pocket, averaged = build(seed), build(seed)
    fit_codec(pocket, averaged, seed, plan)
    training = Training.begin(pocket, averaged, plan)
    step, spent = resume(out, training, identity)
    clock = Clock(spent)
    with stop_on_signals() as stop, closing(LossLog(out / "loss.csv", step)) as losses:
        while step < plan.steps:
            kind, loss = train_step(pocket, training, plan, seed, step)
            step += 1
            losses.add(step, kind, loss)
            if step % every == 0:
                report(
                    f"step {step}/{plan.steps}  {losses.summary()}  {clock.read()['seconds']:.0f} s"
                )
            stopping = stop.asked and step < plan.steps
            if step % every == 0 or step == plan.steps or stopping:
                state = training.state() | identity | {"step": step, "spent": clock.read()}
                write(out / "checkpoint.pt", state)
            if stopping:
                raise Interrupted
    facts = {"steps": step, "spent": clock.read(), "losses": losses.means()}
    finish(out, averaged, identity | facts | {"curve": losses.curve()})


def fit_codec(pocket: Pocket, averaged: Pocket, seed: int, plan: Plan) -> None:
    """Fit both codecs on the same clips, which reach all places that the world ever uses."""
    rng = np.random.default_rng([seed, plan.steps])
    clips, _ = draw_clips(rng, plan.codec_clips, FRAMES, plan, plan.steps)
    pocket.codec.fit(clips)
    averaged.codec.load_state_dict(pocket.codec.state_dict())


def resume(out: Path, training: Training, identity: dict) -> tuple[int, dict[str, float]]:
    """Load the checkpoint of `out`, if it has one: the steps done, and the time spent on them."""
    file = out / "checkpoint.pt"
    state = read(file)
    if state is None:
        return 0, {"seconds": 0.0, "cpu_seconds": 0.0}
    try:
        if {key: state[key] for key in identity} != identity:
            raise JtError(f"{out}: holds a run of another seed or plan; choose another folder")
        training.load(state)
        return state["step"], state["spent"]
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise JtError(unreadable(file, error)) from error


def finish(out: Path, averaged: Pocket, facts: dict) -> None:
    """Write the averaged weights, what they are made of and a contact sheet."""
    save(averaged, out)
    transformer = sum(weight.numel() for weight in averaged.transformer.parameters())
    text_encoder = sum(weight.numel() for weight in averaged.text_encoder.parameters())
    facts |= {
        "parameters": {"transformer": transformer, "text_encoder": text_encoder},
        "versions": versions(),
        "python": python(),
        "threads": torch.get_num_threads(),
    }
    write_text(out / "pretraining.json", json.dumps(facts, indent=2) + "\n")
    videos = sample(load(out), PROMPTS, torch.Generator().manual_seed(0))
    with write_atomically(out / "samples.png") as aside:
        contact_sheet(videos, PROMPTS).save(aside, format="png")


class Clock:
    """Seconds of wall and of CPU over all sessions of a run"""

    def __init__(self, spent: dict[str, float]) -> None:
        self.wall = time.perf_counter() - spent["seconds"]
        self.cpu = time.process_time() - spent["cpu_seconds"]

    def read(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self.wall, 1),
            "cpu_seconds": round(time.process_time() - self.cpu, 1),
        }
