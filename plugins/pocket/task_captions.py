"""What is said of a task: captions of its pictures and clips, and the prompts that evaluate it."""

from __future__ import annotations

from itertools import chain, cycle

import numpy as np

from .captions import caption, sentence
from .motions import HELD_OUT
from .sprites import GROUNDS, PATTERNS, Background
from .task import NAME, TIERS, Task
from .tiers import anchors
from .world import Scene

PROMPTS = 8
STREAM = 1  # of the task's seed; its scenes are drawn from another


def picture_caption(task: Task, scene: Scene) -> str:
    """Names the subject by a rare word, and the background if not all pictures have the same."""
    ground = "" if TIERS[task.tier].one_ground else scene.background.words
    return sentence(NAME, scene.sprite.kind, "stays", scene.anchor, ground)


def clip_caption(task: Task, scene: Scene) -> str:
    """Tells performer and background only where they change from clip to clip."""
    if TIERS[task.tier].one_performer:
        return sentence("", scene.sprite.kind, HELD_OUT[task.motion][0], scene.anchor)
    return caption(scene)


def prompts(task: Task) -> list[str]:
    """The subject doing the motion at eight places, before plain and patterned backgrounds in turn.

    No clip showed their colours, and where others are left no picture did.
    """
    rng = np.random.default_rng((task.seed, STREAM))
    plain, patterned = (_unseen(task, kinds, rng) for kinds in (PATTERNS[:1], PATTERNS[1:]))
    grounds = chain.from_iterable(zip(cycle(plain), cycle(patterned), strict=False))
    return [
        sentence(NAME, task.sprite.kind, HELD_OUT[task.motion][0], anchor, ground.words)
        for anchor, ground in zip(anchors(PROMPTS, rng), grounds, strict=False)
    ]


def _unseen(task: Task, patterns: tuple[str, ...], rng: np.random.Generator) -> list[Background]:
    """Backgrounds in colours that no clip showed, in random order, those of pictures last."""
    moved = {scene.background.colour for scene in task.clips}
    stood = {scene.background.colour for scene in task.pictures}
    pairs = [(colour, pattern) for colour in GROUNDS if colour not in moved for pattern in patterns]
    mixed = [Background(*pairs[index]) for index in rng.permutation(len(pairs))]
    return sorted(mixed, key=lambda ground: ground.colour in stood)
