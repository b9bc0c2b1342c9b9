"""Which background a video has, and how much of it is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ..sprites import CONTRAST, GROUNDS, PATTERNS, Background
from ..world import SIZE

BACKGROUNDS = tuple(Background(colour, pattern) for colour in GROUNDS for pattern in PATTERNS)
OUTLIER = 0.2  # distance of colours from which a pixel is as wrong as can be
TOLERANCE = 0.5 * 3**0.5 * CONTRAST / 255  # half the distance of a pattern's two tones
WINDOW = 12  # px, a square that holds a sprite at any place, with its smoothed edges


def find_background(video: np.ndarray) -> Background:  # (3, F, H, W)
    """The known background that fits best; what stands before it counts as outliers.

    The sum of squared distances, each cut off at OUTLIER, is least (a redescending M-estimate).
    """
    away = distances(video, _bank())  # (28, F, H, W)
    return BACKGROUNDS[np.square(away.clip(max=OUTLIER)).sum((1, 2, 3)).argmin()]


def distances(video: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """From each pixel of (3, F, H, W) to the same of each of (B, 3, H, W): (B, F, H, W)."""
    channels = zip(video, grounds.swapaxes(0, 1), strict=True)
    return np.sqrt(sum(np.square(seen - known[:, None]) for seen, known in channels))


def ground_map(video: np.ndarray) -> np.ndarray:  # (3, F, H, W) -> bool (F, H, W)
    """The pixels that are not of the object, whatever the ground.

    The object is taken to be in the WINDOW that holds most of what is near no known ground.
    """
    foreign = distances(video, _bank()).min(0) > 2 * TOLERANCE  # (F, H, W)
    ground = np.ones(foreign.shape, bool)
    for frame, (top, left) in enumerate(fullest_windows(foreign.astype(np.float32))):
        if foreign[frame].any():
            ground[frame, top : top + WINDOW, left : left + WINDOW] = False
    return ground


def fullest_windows(mass: np.ndarray) -> np.ndarray:  # (F, H, W) -> int (F, 2)
    """The top left corners of the WINDOW x WINDOW squares that hold most of `mass`.

    Where several do, the middle one of them.
    """
    sums = np.pad(mass.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    held = sums[:, WINDOW:, WINDOW:] - sums[:, :-WINDOW, WINDOW:]
    held = held - sums[:, WINDOW:, :-WINDOW] + sums[:, :-WINDOW, :-WINDOW]
    best = held >= held.max((1, 2), keepdims=True) - 1e-3
    return np.array([np.argwhere(one).mean(0).round() for one in best]).astype(int)


def adherence(video: np.ndarray, background: Background) -> float:
    """How much of the ground is `background`, in [0, 1].

    The share of pixels that are within OUTLIER of it and nearer to it than to another known
    background, where the two differ, for that other one with which the share is least: a missing
    pattern costs all, though most of its pixels are right.
    """
    away = distances(video, _bank())
    ground, own = ground_map(video), _index(background)
    near, others = away[own] < OUTLIER, (o for o in range(len(BACKGROUNDS)) if o != own)
    return min(_share(near & (away[own] < away[o]), ground & _differing(own, o)) for o in others)


def leak(video: np.ndarray, background: Background, others: Sequence[Background]) -> float:
    """How much of the ground is one of `others` instead of `background`, in [0, 1].

    The share of pixels that are within OUTLIER of the other, and no nearer to any known background,
    where it differs from `background`; for that other one with which the share is greatest.
    """
    away = distances(video, _bank())
    ground, own, nearest = ground_map(video), _index(background), away.min(0)
    leaked = (o for o in map(_index, others) if o != own)
    return max(
        _share((away[o] < OUTLIER) & (away[o] == nearest), ground & _differing(own, o))
        for o in leaked
    )


def _share(true: np.ndarray, among: np.ndarray) -> float:  # bool (F, H, W) each
    return float((true & among).sum() / max(among.sum(), 1))


def _index(background: Background) -> int:
    return BACKGROUNDS.index(background)


@cache
def _differing(one: int, other: int) -> np.ndarray:  # bool (H, W)
    return np.linalg.norm(_bank()[one] - _bank()[other], axis=0) > TOLERANCE


@cache
def _bank() -> np.ndarray:  # (28, 3, H, W)
    return np.stack([background.pixels(SIZE) for background in BACKGROUNDS])
