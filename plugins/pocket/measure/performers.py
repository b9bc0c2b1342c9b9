"""How much the object looks like those who showed the motion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..sprites import Background, Sprite
from ..world import SIZE
from .identity import distractors
from .likeness import Likeness, draw, likenesses

ROUNDS = 30  # of coordinate descent; three explanations settle in fewer


def appearance_leak(
    video: np.ndarray, sprite: Sprite, performers: Sequence[Sprite], background: Background
) -> float:
    """The share of a performer in the object, in [0, 1]; of several, the greatest.

    What the object adds to the ground is explained by `sprite`, by its best distractor and by one
    performer, each as strong as fits best but not negative (least squares); the performer's share
    is its strength, mean over frames. In a blend it is the blend's own share. 0 without an object.
    """
    others = [other for other in distractors(sprite) if other not in performers]
    compared = [sprite, *performers, *others]
    found = dict(zip(compared, likenesses(video, compared, background), strict=True))
    best = max(others, key=lambda other: found[other].correlation.mean())
    added = (video - background.pixels(SIZE)[:, None]).swapaxes(0, 1).reshape(video.shape[1], -1)
    parts = {
        each: _additions(each, found[each], background) for each in (sprite, best, *performers)
    }
    strengths = [
        _strengths(added, np.stack([parts[sprite], parts[best], parts[performer]], 1))[:, 2].mean()
        for performer in performers
    ]
    return float(np.clip(max(strengths), 0, 1))


def _additions(sprite: Sprite, found: Likeness, background: Background) -> np.ndarray:
    """(F, 3 * SIZE^2): what an exact rendering adds to the ground where the sprite was found."""
    ground, added = background.pixels(SIZE), np.zeros((len(found.scales), 3 * SIZE * SIZE))
    for frame in np.flatnonzero(found.scales):
        drawn = draw(sprite, found.places[frame], found.scales[frame], SIZE)
        added[frame] = (drawn[:3] - ground * drawn[3:]).reshape(-1)
    return added


def _strengths(added: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Non-negative least squares of `added` (F, D) by `parts` (F, K, D): (F, K)."""
    gram = parts @ parts.swapaxes(1, 2)  # (F, K, K)
    target = np.einsum("fkd,fd->fk", parts, added)
    strengths = np.zeros(target.shape)
    for _ in range(ROUNDS):
        for k in range(parts.shape[1]):
            missing = target[:, k] - (gram[:, k] * strengths).sum(1)
            step = missing / np.maximum(gram[:, k, k], 1e-9)
            strengths[:, k] = np.maximum(0, strengths[:, k] + step)
    return strengths
