"""What pretraining showed, to be shown again: so that learning one subject unlearns no other."""

from __future__ import annotations

import numpy as np

from .creatures import Creature
from .held_out import is_held_out
from .tiers import anchors
from .world import Scene, draw_background, draw_creature, draw_scene

STREAM = 2  # of a task's seed; its scenes and prompts are drawn from others


def draw_prior(pictures: int, clips: int, seed: int) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """Pictures of creatures, the class of all subjects, that stay at every place; and clips of
    whatever moves in any way that pretraining knows."""
    rng = np.random.default_rng((seed, STREAM))
    shown = tuple(
        Scene(_creature(rng), "stays", anchor, draw_background(rng))
        for anchor in anchors(pictures, rng)
    )
    return shown, tuple(draw_scene(rng) for _ in range(clips))


def _creature(rng: np.random.Generator) -> Creature:
    while is_held_out(creature := draw_creature(rng)):
        pass
    return creature
