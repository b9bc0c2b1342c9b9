"""Validate the metrics: what they answer to videos that are right or wrong in a known way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from attrs import fields_dict

from jtcore.plugins import load_plugins
from jtcore.report import markdown_table
from jtcore.types import Metric, Sample

from ..captions import sentence
from ..held_out import SUBJECTS
from ..motions import ANCHORS, HELD_OUT
from ..task import NAME, Task
from ..tiers import draw_tasks
from ..world import FRAMES, Scene
from .films import KINDS, Case
from .grounds import BACKGROUNDS

METRICS = (
    *("sprite_identity", "sprite_motion", "background_adherence", "background_leak"),
    *("appearance_leak", "single_object", "steadiness", "success"),
)
CPU = torch.device("cpu")
CHANGE = "greatest change by the mp4 file"  # the table's last row
PLACES = 2  # for each subject and motion


def validate(shown: Sequence[Task]) -> str:
    """A Markdown table: a row for each kind of video, a column for each metric, mean ± deviation.

    The subject of each task does its motion at PLACES places, and the metrics are those that a
    recipe names. The last row is by how much writing an mp4 file and reading it changes a value at
    the most.
    """
    rows: dict[str, list[Mapping[str, float]]] = {kind: [] for kind in KINDS}
    with TemporaryDirectory() as folder:
        for task in shown:
            task.write(Path(folder))
            metrics = load_metrics(Path(folder))
            for case in cases(task):
                for kind, make in KINDS.items():
                    rows[kind].append(answers(metrics, make(case), case.scene))
    return _table(rows)


def tasks() -> list[Task]:
    """One for each held-out subject and motion; every second has one performer in all clips."""
    pairs = [(subject, motion) for subject in SUBJECTS for motion in HELD_OUT]
    tiers = ("easy", "leaky")
    return [draw_tasks(*pair, tiers[k % 2], seed=k)[0] for k, pair in enumerate(pairs)]


def cases(task: Task) -> list[Case]:
    """The subject doing the motion at several places, before backgrounds that no clip has."""
    rng = np.random.default_rng((task.seed, 2))
    shown = {background.colour for background in task.backgrounds}
    grounds = [background for background in BACKGROUNDS if background.colour not in shown]
    places, chosen = rng.permutation(list(ANCHORS)), rng.permutation(len(grounds))
    return [
        Case(
            Scene(task.sprite, task.motion, str(places[k]), grounds[chosen[k]]),
            task.performers[k % len(task.performers)],
            task.backgrounds,
            seed=PLACES * task.seed + k,
        )
        for k in range(PLACES)
    ]


def load_metrics(folder: Path) -> dict[str, Metric]:
    """The metrics by kind, told the task of `folder`."""
    kinds = load_plugins().families["metrics"]
    options = {"task": str(folder)}
    specs = [
        kinds[kind](**{name: options[name] for name in fields_dict(kinds[kind])})
        for kind in METRICS
    ]
    return {kind: spec.load(CPU) for kind, spec in zip(METRICS, specs, strict=True)}


def answers(
    metrics: Mapping[str, Metric], video: np.ndarray, asked: Scene
) -> dict[str, float]:  # (3, F, H, W) in [0, 1]
    """Every value of every metric for a video that was asked for as the task's subject."""
    sample = Sample(torch.from_numpy(video), prompt(asked), seed=0, fps=FRAMES)
    return {key: value for metric in metrics.values() for key, value in metric(sample).items()}


def prompt(scene: Scene) -> str:
    """The scene in words, its sprite being the subject."""
    phrase = HELD_OUT[scene.motion][0]
    return sentence(NAME, scene.sprite.kind, phrase, scene.anchor, scene.background.words)


def _table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    cells = [
        [kind, *(_cell([values[m] for values in found if m in values]) for m in METRICS)]
        for kind, found in rows.items()
    ]
    changes = [CHANGE, *(f"{_greatest_change(rows, metric):.3f}" for metric in METRICS)]
    return "\n".join(markdown_table(["video", *METRICS], [*cells, changes])) + "\n"


def _greatest_change(rows: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> float:
    pairs = zip(rows["true, through the codec"], rows["the same, as mp4"], strict=True)
    return max(abs(one[metric] - other[metric]) for one, other in pairs)


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values):.2f}" if values else "-"
