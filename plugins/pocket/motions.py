"""How a sprite can move: exact paths around its anchor."""

from __future__ import annotations

from functools import cache

import numpy as np

PERIOD = 8  # frames of a whole path
REACH = 3.0  # px, how far a path leaves its anchor

PHRASES = {  # the first phrase is the canonical one; it always names the motion
    "stays": ("stays", "rests"),
    "left": ("moves left", "goes left", "slides left"),
    "right": ("moves right", "goes right", "slides right"),
    "up": ("moves up", "goes up", "slides up"),
    "down": ("moves down", "goes down", "slides down"),
    "northwest": ("moves northwest", "goes northwest"),
    "northeast": ("moves northeast", "goes northeast"),
    "southwest": ("moves southwest", "goes southwest"),
    "southeast": ("moves southeast", "goes southeast"),
    "clockwise": ("circles clockwise", "turns clockwise"),
    "counterclockwise": ("circles counterclockwise", "turns counterclockwise"),
    "bounces": ("bounces", "hops"),
    "shakes": ("shakes", "trembles"),
    "sways": ("sways", "swings"),
    "zigzags": ("zigzags",),
}
HELD_OUT = {
    "eightwise": ("moves eightwise",),
    "spirals": ("spirals",),
    "squares": ("squares",),
}
ANCHORS = {  # px, (y, x) of the sprite's centre; no word of a place is one of a direction
    "top-left": (8.0, 8.0),
    "top": (8.0, 12.0),
    "top-right": (8.0, 16.0),
    "mid-left": (12.0, 8.0),
    "mid": (12.0, 12.0),
    "mid-right": (12.0, 16.0),
    "bottom-left": (16.0, 8.0),
    "bottom": (16.0, 12.0),
    "bottom-right": (16.0, 16.0),
}


def path(motion: str, frames: int) -> np.ndarray:  # (frames, 2), px from the anchor, (y, x)
    """The exact path of `motion`; a shorter clip is its beginning."""
    assert 1 <= frames <= PERIOD, f"{frames} frames, the world has {PERIOD}"
    return _paths()[motion][:frames]


@cache
def _paths() -> dict[str, np.ndarray]:  # of (PERIOD, 2)
    t = np.arange(PERIOD) / PERIOD
    line = np.linspace(-1, 1, PERIOD)
    zero, turn = np.zeros(PERIOD), 2 * np.pi * t
    wave = np.sin(2 * turn)
    radius = np.linspace(0, 1, PERIOD)
    corners = np.linspace(0, 1, 5)
    shape = {
        "stays": (zero, zero),
        "left": (zero, -line),
        "right": (zero, line),
        "up": (-line, zero),
        "down": (line, zero),
        "northwest": (-line, -line),
        "northeast": (-line, line),
        "southwest": (line, -line),
        "southeast": (line, line),
        "clockwise": (-np.cos(turn), np.sin(turn)),
        "counterclockwise": (-np.cos(turn), -np.sin(turn)),
        "bounces": (1 - 2 * abs(np.sin(turn)), zero),
        "shakes": (zero, 0.6 * (-1.0) ** np.arange(PERIOD)),
        "sways": (zero, np.sin(turn)),
        "zigzags": (0.7 * wave, line),
        "eightwise": (0.9 * wave, np.sin(turn)),
        "spirals": (-radius * np.cos(3 * np.pi * radius), radius * np.sin(3 * np.pi * radius)),
        "squares": tuple(
            np.interp(t, corners, c) for c in ((-1, -1, 1, 1, -1), (-1, 1, 1, -1, -1))
        ),
    }
    # whole pixels: off them, a creature's cells are not crisp
    return {
        name: (REACH * np.stack(yx, 1)).round().astype(np.float32) for name, yx in shape.items()
    }
