"""Prompts that probe what was learned of a task: its subject, its motion, both, neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jtcore.files import write_text
from jtcore.tables import write_toml

from .captions import sentence
from .motions import HELD_OUT, PHRASES
from .prompts import read_prompt
from .sprites import SHAPES, Shape
from .task import NAME, Task
from .task_captions import prompts
from .tones import COLOURS

FILE = "probes.toml"
STREAM = 2  # of the task's seed; scenes and prompts are drawn from others
HEADER = """\
# What jt-probe asks of a run on this task, in prompts that belong together: the same places and
# backgrounds, with the subject or a shape that pocket knows, which does the motion or one that it
# knows.
"""


def write_probes(folder: Path, task: Task) -> None:
    write_text(folder / FILE, HEADER + write_toml({"prompts": probes(task)}))


def probes(task: Task) -> dict[str, list[str]]:
    """By kind; the i-th of each have one place and one background."""
    rng = np.random.default_rng((task.seed, STREAM))
    shapes, motions = _known_shapes(task, rng), _known_motions(rng)
    both, found = prompts(task), {"subject": [], "motion": [], "both": [], "neither": []}
    taught = HELD_OUT[task.motion][0]
    for index, prompt in enumerate(both):
        wish = read_prompt(prompt, {NAME: task.sprite})
        place = wish.anchor, wish.background.words
        shape, known = shapes[index % len(shapes)], motions[index % len(motions)]
        found["subject"].append(sentence(NAME, task.sprite.kind, known, *place))
        found["motion"].append(sentence(shape.look, shape.name, taught, *place))
        found["both"].append(prompt)
        found["neither"].append(sentence(shape.look, shape.name, known, *place))
    return found


def _known_shapes(task: Task, rng: np.random.Generator) -> list[Shape]:
    """In random order, but for those that perform in the clips."""
    every = [Shape(name, colour) for name in SHAPES for colour in COLOURS]
    others = [shape for shape in every if shape not in task.performers]
    return [others[index] for index in rng.permutation(len(others))]


def _known_motions(rng: np.random.Generator) -> list[str]:
    """Those that go somewhere, in random order."""
    phrases = [among[0] for name, among in PHRASES.items() if name != "stays"]
    return [phrases[index] for index in rng.permutation(len(phrases))]
