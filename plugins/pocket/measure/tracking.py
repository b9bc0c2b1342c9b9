"""Where the object is in each frame, whatever it looks like."""

from __future__ import annotations

import numpy as np

from ..sprites import Background
from ..tones import COLOURS, EYE
from ..world import SIZE
from .grounds import distances, fullest_windows, windows

FAINT, PLAIN = 0.15, 0.31  # distances from the ground: none of the object, all of it
PRESENT = 12.0  # px, the least area that counts as an object; a quarter of the smallest sprite


def track(video: np.ndarray, background: Background) -> np.ndarray:  # (F, 2) px
    """The centre of the object's silhouette in each frame; nan where there is no object.

    A sprite's silhouette may lie off the sprite's centre, always by the same offset.
    """
    held = object_mass(video, background)
    area = held.sum((1, 2))
    axis = np.arange(SIZE) + 0.5
    centres = (
        np.stack([held.sum(2) @ axis, held.sum(1) @ axis], 1) / np.maximum(area, 1e-6)[:, None]
    )
    return np.where(area[:, None] >= PRESENT, centres, np.nan)


def foreground(video: np.ndarray, background: Background) -> np.ndarray:  # (F, H, W) in [0, 1]
    """How much each pixel is of an object."""
    away = distances(video, background.pixels(SIZE)[None])[0]
    return ((away - FAINT) / (PLAIN - FAINT)).clip(0, 1)


def object_mass(video: np.ndarray, background: Background) -> np.ndarray:  # (F, H, W)
    """The foreground in the window of the object: nothing of a second one."""
    return in_window(foreground(video, background))


def in_window(mass: np.ndarray) -> np.ndarray:  # (F, H, W) -> (F, H, W)
    """`mass` in the square that holds most of it: where the object is, if there is one."""
    return np.where(windows(fullest_windows(mass)), mass, 0)


def count_objects(video: np.ndarray, background: Background) -> np.ndarray:  # int (F,): 0, 1 or 2
    """How many objects are in each frame; 2 is "more than one".

    Pieces that fit into one WINDOW are one object: a creature's cells need not touch.
    """
    mass = foreground(video, background)
    first = in_window(mass)
    second = in_window(mass - first)
    return sum((held.sum((1, 2)) >= PRESENT).astype(int) for held in (first, second))


def stray_area(video: np.ndarray, background: Background) -> np.ndarray:  # (F,) px
    """The area of what is neither ground nor in the object's WINDOW."""
    mass = foreground(video, background)
    return (mass - in_window(mass)).sum((1, 2))


def colours_of(video: np.ndarray, background: Background) -> dict[str, float]:
    """The share of each named colour in the object, the greatest first; empty without an object.

    Each pixel counts as the nearest of COLOURS. Eyes do not count, nor do pixels at the edge, where
    sprite and ground mix to colours of neither.
    """
    inside = _inside(object_mass(video, background) >= 1)
    pixels = video.transpose(1, 2, 3, 0)[inside]  # (N, 3)
    palette = np.array([*COLOURS.values(), EYE]) / 255
    nearest = np.linalg.norm(pixels[:, None] - palette, axis=-1).argmin(1)
    counts = np.bincount(nearest, minlength=len(palette))[: len(COLOURS)]
    if not counts.any():
        return {}
    order = (-counts).argsort(kind="stable")
    return {list(COLOURS)[k]: float(counts[k] / counts.sum()) for k in order}


def _inside(solid: np.ndarray) -> np.ndarray:  # bool (F, H, W)
    """The pixels whose four neighbours are solid too."""
    padded = np.pad(solid, ((0, 0), (1, 1), (1, 1)))
    beside = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return np.logical_and.reduce((solid, *beside))
