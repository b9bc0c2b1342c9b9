"""What can be seen: coloured shapes, creatures and backgrounds."""

from __future__ import annotations

from functools import cache

import numpy as np
from attrs import field, frozen
from attrs.validators import in_

from .creatures import Creature
from .tones import COLOURS, FINE, SIDE, paint

GROUNDS = {
    "gray": (110, 110, 110),
    "black": (12, 12, 12),
    "navy": (20, 25, 85),
    "teal": (15, 105, 110),
    "olive": (85, 95, 30),
    "brown": (95, 60, 35),
    "plum": (80, 30, 75),
}
PATTERNS = ("plain", "checkered", "striped", "dotted")
SHAPES = ("ball", "square", "triangle", "cross", "ring", "moon")
CONTRAST = 26  # how much lighter the second tone of a patterned background is, of 255


@frozen
class Shape:
    """A plain shape in one colour"""

    name: str = field(validator=in_(SHAPES))
    colour: str = field(validator=in_(COLOURS))

    @property
    def kind(self) -> str:
        return self.name

    @property
    def look(self) -> str:
        return self.colour

    def template(
        self,
    ) -> np.ndarray:  # (4, S, S) in [0, 1]: red, green, blue, each times alpha; alpha
        return paint(COLOURS[self.colour], _mask(self.name))


Sprite = Shape | Creature


@frozen
class Background:
    """A plain or patterned ground"""

    colour: str = field(validator=in_(GROUNDS))
    pattern: str = field(default="plain", validator=in_(PATTERNS))

    @property
    def words(self) -> str:
        return self.colour if self.pattern == "plain" else f"{self.pattern} {self.colour}"

    def pixels(self, size: int) -> np.ndarray:  # (3, size, size) in [0, 1]
        dark = np.array(GROUNDS[self.colour], np.float32)[:, None, None]
        return (dark + CONTRAST * _pattern(self.pattern, size)) / 255


@cache
def _mask(name: str) -> np.ndarray:  # (S, S) of 0 and 1
    axis = (np.arange(SIDE * FINE) + 0.5) / (SIDE * FINE / 2) - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    radius, reach = np.hypot(x, y), np.maximum(abs(x), abs(y))
    inside = {
        "ball": radius < 0.95,
        "square": reach < 0.85,
        "triangle": (y > -0.95) & (y < 0.8) & (abs(x) < (y + 0.95) * 0.57),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (reach < 1),
        "ring": (radius < 1) & (radius > 0.55),
        "moon": (radius < 1) & (np.hypot(x - 0.5, y + 0.3) > 0.75),
    }
    return inside[name].astype(np.float32)


@cache
def _pattern(name: str, size: int) -> np.ndarray:  # (size, size) of 0 and 1
    y, x = np.indices((size, size))
    lit = {
        "plain": y < 0,
        "checkered": (y // 6 + x // 6) % 2 == 0,
        "striped": y // 3 % 2 == 0,
        "dotted": (y % 6 // 2 == 1) & (x % 6 // 2 == 1),
    }
    return lit[name].astype(np.float32)
