"""Colours, and how a sprite's template is painted with them."""

from __future__ import annotations

import numpy as np

SIDE = 10  # px, the square that a sprite is drawn in
FINE = 4  # template points per px, so that a quarter of a pixel is exact
EYE = (15, 15, 15)
COLOURS = {
    "red": (230, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 230, 60),
    "green": (70, 210, 60),
    "blue": (60, 100, 250),
    "purple": (170, 70, 230),
    "pink": (255, 150, 205),
    "white": (250, 250, 250),
}


def paint(tone: tuple[int, int, int], mask: np.ndarray) -> np.ndarray:
    """The template (4, S, S) of one `tone` where `mask` (S, S) is 1."""
    return np.stack([mask * (level / 255) for level in tone] + [mask]).astype(np.float32)
