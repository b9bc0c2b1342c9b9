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
ROOM = 0.2  # of the energy, how much less than a rival a leak explains when it counts no more
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


def ground_map(video: np.ndarray, background: Background) -> np.ndarray:
    """The pixels of (3, F, H, W) that are not of the object, whatever the ground: (F, H, W).

    The object is taken to be in the WINDOW that holds most of what is foreign.
    """
    foreign = foreign_map(video, background)
    inside = windows(fullest_windows(foreign.astype(np.float32)))
    return ~(inside & foreign.any((1, 2), keepdims=True))


def foreign_map(video: np.ndarray, background: Background) -> np.ndarray:  # bool (F, H, W)
    """The pixels that are near no known ground, nor near a blend of `background` with one."""
    return _from_blends(video, background) > 2 * TOLERANCE


def fullest_windows(mass: np.ndarray) -> np.ndarray:  # (F, H, W) -> int (F, 2)
    """The top left corners of the WINDOW x WINDOW squares that hold most of `mass`.

    Of two objects that are alike it is the upper one, or the left one; of the squares that hold
    the same object, the middle one.
    """
    first = np.array([np.argwhere(best)[0] for best in _fullest(mass)])
    same = _fullest(np.where(windows(first), mass, 0))
    return np.array([np.argwhere(best).mean(0).round() for best in same]).astype(int)


def windows(corners: np.ndarray) -> np.ndarray:  # int (F, 2) -> bool (F, SIZE, SIZE)
    """The pixels of the WINDOW x WINDOW squares with these top left corners."""
    inside = np.zeros((len(corners), SIZE, SIZE), bool)
    for frame, (top, left) in enumerate(corners):
        inside[frame, top : top + WINDOW, left : left + WINDOW] = True
    return inside


def _fullest(mass: np.ndarray) -> np.ndarray:  # (F, H, W) -> bool (F, corners, corners)
    sums = np.pad(mass.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    held = sums[:, WINDOW:, WINDOW:] - sums[:, :-WINDOW, WINDOW:]
    held = held - sums[:, WINDOW:, :-WINDOW] + sums[:, :-WINDOW, :-WINDOW]
    return held >= held.max((1, 2), keepdims=True) - 1e-3


def adherence(video: np.ndarray, background: Background) -> float:
    """How much of the ground is `background`, in [0, 1].

    The share of pixels that are within OUTLIER of it and nearer to it than to another known
    background, where the two differ, for that other one with which the share is least: a missing
    pattern costs all, though most of its pixels are right.
    """
    away = distances(video, _bank())
    ground, own = ground_map(video, background), _index(background)
    near, others = away[own] < OUTLIER, (o for o in range(len(BACKGROUNDS)) if o != own)
    return min(_share(near & (away[own] < away[o]), ground & _differing(own, o)) for o in others)


def leak(video: np.ndarray, background: Background, clips: Sequence[Background]) -> float:
    """How much of the way from `background` to one of `clips` the ground has gone, in [0, 1].

    A clip's background may leak as a whole, or its pattern alone, or its colour alone; the greatest
    share of these counts. The share is the least squares fit of the ground's pixels between the
    two, mean over frames; in a blend it is the blend's own, and where only a part of the area
    leaks, that part. It counts only if no background that would be no leak explains them better:
    black is on the way from teal to navy, but is not navy.
    """
    leaked = leaks(background, clips)
    colours = [other for other in leaked if other.colour != background.colour]
    patterns = [other for other in leaked if other.colour == background.colour]
    rivals = [other for other in BACKGROUNDS if other not in (background, *leaked)]
    tones = [rival for rival in rivals if rival.colour == background.colour]
    ground = ground_map(video, background) & ~foreign_map(video, background)
    return max(
        _greatest_share(video, ground, background, colours, rivals, centred=False),
        _greatest_share(video, ground, background, patterns, tones, centred=True),
    )


def leaks(background: Background, clips: Sequence[Background]) -> list[Background]:
    """What else than `background` clips can leave: theirs, their patterns, their colours."""
    found = [
        other
        for clip in clips
        for other in (
            clip,
            Background(background.colour, clip.pattern),
            Background(clip.colour, background.pattern),
        )
    ]
    return [other for other in dict.fromkeys(found) if other != background]


def _greatest_share(
    video: np.ndarray,  # (3, F, H, W)
    ground: np.ndarray,  # bool (F, H, W)
    background: Background,
    leaked: Sequence[Background],
    rivals: Sequence[Background],
    *,
    centred: bool,  # compare patterns alone: a ground of another brightness is no pattern
) -> float:
    if not leaked:
        return 0.0
    fits = [_shares(video, ground, background, each, centred) for each in (*leaked, *rivals)]
    shares, explained = np.array(fits).swapaxes(0, 1)  # (backgrounds, F) each
    best = explained[len(leaked) :].max(0, initial=1e-6)
    weight = 1 - (1 - explained[: len(leaked)] / best) / ROOM
    return float((shares[: len(leaked)] * weight.clip(0, 1)).mean(1).max())


def _shares(
    video: np.ndarray, ground: np.ndarray, one: Background, other: Background, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How far the ground is from `one` to `other`, and the energy that this explains: (F,) each."""
    start, end = _bank()[_index(one)], _bank()[_index(other)]
    gone = np.where(ground, video - start[:, None], 0)  # (3, F, H, W)
    way = np.where(ground, (end - start)[:, None], 0)
    if centred:
        area = np.maximum(ground.sum((1, 2)), 1)[:, None, None]
        gone, way = (
            np.where(ground, each - each.sum((2, 3), keepdims=True) / area, 0)
            for each in (gone, way)
        )
    product, square = (gone * way).sum((0, 2, 3)), np.square(way).sum((0, 2, 3))
    share = (product / np.maximum(square, 1e-9)).clip(0, 1)
    return share, 2 * share * product - share**2 * square


def _from_blends(video: np.ndarray, background: Background) -> np.ndarray:  # (F, H, W)
    """The distance of each pixel from the nearest blend of `background` with a known one."""
    start = _bank()[_index(background)]
    gone, ways = video - start[:, None], _bank() - start
    products = np.einsum("cfhw,bchw->bfhw", gone, ways, optimize=True)
    squares = np.square(ways).sum(1)[:, None]
    share = (products / np.maximum(squares, 1e-9)).clip(0, 1)
    off = np.square(gone).sum(0) - 2 * share * products + np.square(share) * squares
    return np.sqrt(off.min(0).clip(0))


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
