"""Whether the object is the sprite that was asked for, and not another of its colours."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
from attrs import evolve, frozen

from ..creatures import Creature, differing_cells
from ..sprites import SHAPES, Background, Shape, Sprite
from ..tones import COLOURS, EYE
from ..world import SIZE, draw_creature
from .grounds import OUTLIER
from .likeness import likeness, likenesses
from .tracking import object_mass

LOOK_ALIKES = 8
OTHER = 6  # of 15 cells, how many differ at the least
SEED = 0  # of the look-alikes, always the same
LOSSY = 0.95  # correlation from which a sprite counts as whole: what pocket's codec leaves of one
NOISE = 0.03  # variance of a colour below which its differences are not enhanced


@frozen
class Identity:
    """How like its sprite an object is"""

    score: float  # in [0, 1]
    correlation: float  # with the sprite's template, in RGB
    margin: float  # over the best distractor, with the colours told apart
    colours: float  # share of the object that is in the sprite's colours


def identify(video: np.ndarray, sprite: Sprite, background: Background) -> Identity:
    """Compare the object of (3, F, SIZE, SIZE) to `sprite` and to its distractors.

    Correlations are means over frames, each at its sprite's best place and scale, after `telling`.
    With u = 1 - correlation^2, which is unexplained by a template, the score is

        1 - (u(sprite) - u(LOSSY)) / (u(best distractor) - u(LOSSY)),

    so 1 for a sprite that is whole and 0 for what is as like a distractor, or more; and it is no
    more than `colours`.
    """
    compared = [sprite, *distractors(sprite)]
    found = likenesses(video, compared, background, telling(sprite, background))
    own, *others = (float(each.correlation.mean()) for each in found)
    colours = share_in_colours(video, sprite, background)
    return Identity(
        min(_score(own, max(others)), colours),
        float(likeness(video, sprite, background).correlation.mean()),
        own - max(others),
        colours,
    )


def _score(own: float, other: float) -> float:
    if own <= other:
        return 0.0
    missing, room = LOSSY**2 - own * abs(own), LOSSY**2 - other * abs(other)
    return 1.0 if missing <= 0 else 1 - missing / room


@cache
def distractors(sprite: Sprite) -> tuple[Sprite, ...]:
    """Other sprites of the same colours: plain shapes; and of a creature also LOOK_ALIKES whose
    layouts differ in OTHER cells, and itself with its colours exchanged."""
    if isinstance(sprite, Shape):
        return tuple(Shape(name, sprite.colour) for name in SHAPES if name != sprite.name)
    plain = [Shape(name, colour) for colour in sprite.colours for name in SHAPES]
    exchanged = evolve(sprite, colours=sprite.colours[::-1])
    rng = np.random.default_rng(SEED)
    return (*(draw_look_alike(sprite, rng) for _ in range(LOOK_ALIKES)), exchanged, *plain)


def draw_look_alike(sprite: Creature, rng: np.random.Generator) -> Creature:
    """A creature in the same colours, of a layout that differs in OTHER cells or more."""
    while True:
        other = draw_creature(rng, sprite.colours)
        if differing_cells(other.rows, sprite.rows) >= OTHER:
            return other


@cache
def telling(sprite: Sprite, background: Background) -> np.ndarray:  # (3, 3)
    """A map of colours under which a creature's two differ as much as they are strong.

    Without it white and pink are nearly one colour, and any creature in them is like any other.
    It whitens what the colours add to the ground, Wiener's way, so that what neither adds is
    dropped; a plain shape's is the identity.
    """
    if isinstance(sprite, Shape):
        return np.eye(3)
    added = _tones(sprite)[:2] - background.pixels(SIZE).mean((1, 2))
    variances, axes = np.linalg.eigh(added.T @ added / len(added))
    gains = np.sqrt(variances.clip(0)) / (variances.clip(0) + NOISE)
    return (axes * gains) @ axes.T


def share_in_colours(video: np.ndarray, sprite: Sprite, background: Background) -> float:
    """The share of the object's pixels that are near a colour of the sprite, or a mix of two.

    Eyes and the ground mix in as well: at edges, and where a codec blurs.
    """
    solid = object_mass(video, background) >= 1
    pixels = video.transpose(1, 2, 3, 0)[solid]  # (N, 3)
    if not len(pixels):
        return 0.0
    ground = np.broadcast_to(background.pixels(SIZE)[:, None], video.shape)
    tones = [*_tones(sprite), ground.transpose(1, 2, 3, 0)[solid]]
    away = [_from_mix(pixels, one, other) for one, other in combinations(tones, 2)]
    return float((np.min(away, axis=0) < OUTLIER).mean())


def _from_mix(pixels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The distance of (N, 3) from the segment between two colours, each (3,) or (N, 3): (N,)."""
    along = np.broadcast_to(other - one, pixels.shape)
    share = ((pixels - one) * along).sum(1) / np.square(along).sum(1)
    return np.linalg.norm(pixels - one - share.clip(0, 1)[:, None] * along, axis=1)


def _tones(sprite: Sprite) -> np.ndarray:  # (1, 3) or (3, 3) in [0, 1]
    named = (sprite.colour,) if isinstance(sprite, Shape) else sprite.colours
    eyes = () if isinstance(sprite, Shape) else (EYE,)
    return np.array([*(COLOURS[name] for name in named), *eyes]) / 255
