"""The strict rule: when a video shows what was asked for."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from ..sprites import Background, Sprite
from .grounds import adherence, find_background
from .identity import Identity, identify
from .paths import is_on_path
from .tracking import count_objects, track

IDENTITY = 0.5  # half-way from the best distractor to the whole sprite, in unexplained energy
CORRELATION = 0.9  # with the template: best of some hides a broken sprite
COLOURS = 0.75  # share of the object; with one of a creature's two replaced it is about half
BACKGROUND = 0.9  # share of the ground


@frozen
class Success:
    """What is right of a video"""

    identity: bool
    motion: bool
    background: bool
    single: bool

    @property
    def all(self) -> bool:
        return self.identity and self.motion and self.background and self.single


def judge(video: np.ndarray, sprite: Sprite, motion: str, background: Background) -> Success:
    """Hold a video (3, F, SIZE, SIZE) against the strict rule."""
    found = find_background(video)
    return Success(
        is_whole(identify(video, sprite, found)),
        is_on_path(track(video, found), motion),
        adherence(video, background) >= BACKGROUND,
        bool((count_objects(video, found) == 1).all()),
    )


def has_sprite(video: np.ndarray, sprite: Sprite) -> bool:
    """Whether the object of (3, F, SIZE, SIZE) is the sprite, whatever it moves before."""
    return is_whole(identify(video, sprite, find_background(video)))


def is_whole(identity: Identity) -> bool:
    """Whether the object is the sprite, and not broken."""
    known = identity.colours >= COLOURS
    return known and identity.score >= IDENTITY and identity.correlation > CORRELATION
