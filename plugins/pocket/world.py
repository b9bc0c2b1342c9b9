"""The procedurally drawn world: scenes, where their sprites truly are, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import field, frozen
from attrs.validators import in_

from .creatures import Creature, draw_assembled, draw_colours, draw_nameless, pick
from .held_out import assert_is_seen, is_held_out
from .motions import ANCHORS, HELD_OUT, PERIOD, PHRASES, path
from .sprites import GROUNDS, PATTERNS, SHAPES, Background, Shape, Sprite
from .tones import COLOURS, FINE, SIDE

SIZE = 24  # px, height and width of a frame
FRAMES = PERIOD  # of a whole clip
CREATURES = 0.65  # share of creatures among the sprites of pretraining
NAMELESS = 0.2  # share of layouts without words among them


@frozen
class Scene:
    """All that determines a clip: what moves how, where and before what"""

    sprite: Sprite
    motion: str = field(validator=in_({*PHRASES, *HELD_OUT}))
    anchor: str = field(validator=in_(ANCHORS))
    background: Background
    offset: tuple[float, float] = (0.0, 0.0)  # px, (y, x) off the anchor

    def centres(self, frames: int = FRAMES) -> np.ndarray:  # (F, 2) px, (y, x)
        """Where the sprite's centre truly is in each frame."""
        place = np.add(ANCHORS[self.anchor], self.offset)
        return place.astype(np.float32) + path(self.motion, frames)


def render(scenes: Sequence[Scene], frames: int = FRAMES) -> np.ndarray:  # (B, 3, F, H, W)
    """Draw clips, values in [-1, 1]; edges between pixels are anti-aliased by exact coverage."""
    grounds = np.stack([scene.background.pixels(SIZE) for scene in scenes])[:, None]
    drawn = _sprites(scenes, frames)
    pixels = drawn[:, :, :3] + grounds * (1 - drawn[:, :, 3:])
    return np.ascontiguousarray(pixels.swapaxes(1, 2)) * 2 - 1


def masks(scenes: Sequence[Scene], frames: int = FRAMES) -> np.ndarray:  # (B, F, H, W)
    """How much of each pixel the sprite covers, in [0, 1]."""
    return _sprites(scenes, frames)[:, :, 3]


def _sprites(scenes: Sequence[Scene], frames: int) -> np.ndarray:  # (B, F, 4, H, W)
    """Colours times coverage, and coverage."""
    templates = np.stack([scene.sprite.template() for scene in scenes])[:, None]  # (B, 1, 4, S, S)
    centres = np.stack([scene.centres(frames) for scene in scenes])  # (B, F, 2)
    rows, columns = coverage(centres[..., 0]), coverage(centres[..., 1])  # (B, F, H, S)
    return rows[:, :, None] @ templates @ columns[:, :, None].swapaxes(-1, -2)


def coverage(
    centre: np.ndarray, scale: float = 1.0, size: int = SIZE
) -> np.ndarray:  # (...) px -> (..., size, S)
    """How much of each pixel (of one axis) each template point covers, its sprite at `centre`."""
    step = scale / FINE  # px, of one template point
    points = np.arange(SIDE * FINE, dtype=np.float32) * step
    start = centre[..., None, None] - scale * SIDE / 2 + points
    pixel = np.arange(size, dtype=np.float32)[:, None]
    overlap = np.minimum(pixel + 1, start + step) - np.maximum(pixel, start)
    return np.clip(overlap, 0, None).astype(np.float32)


def draw_scene(
    rng: np.random.Generator,
    offset: float = 0.0,
    motion: str | None = None,
    anchor: str | None = None,
) -> Scene:
    """Draw a scene of pretraining's distribution, its place within `offset` px of an anchor.

    Places are no whole pixels: from sprites at all of them a network learns what a shift does, and
    so an adapter that saw a subject at few places can draw it between them.
    """
    sprite = draw_sprite(rng)
    scene = Scene(
        sprite=sprite,
        motion=motion or pick(rng, PHRASES),
        anchor=anchor or pick(rng, ANCHORS),
        background=draw_background(rng),
        offset=tuple(float(off) for off in rng.uniform(-offset, offset, 2)),
    )
    assert_is_seen(scene.sprite, scene.motion)
    return scene


def draw_sprite(rng: np.random.Generator) -> Sprite:
    """A random sprite that is not held out."""
    while True:
        sprite = draw_creature(rng) if rng.random() < CREATURES else draw_shape(rng)
        if not is_held_out(sprite):
            return sprite


def draw_creature(rng: np.random.Generator, colours: tuple[str, str] | None = None) -> Creature:
    """A creature of parts, or sometimes one whose layout has no words."""
    colours = colours or draw_colours(rng)
    nameless = rng.random() < NAMELESS
    return draw_nameless(rng, colours) if nameless else draw_assembled(rng, colours)


def draw_background(rng: np.random.Generator) -> Background:
    pattern = "plain" if rng.random() < 0.5 else pick(rng, PATTERNS[1:])
    return Background(pick(rng, GROUNDS), pattern)


def draw_shape(rng: np.random.Generator) -> Shape:
    """A shape in a colour, whether held out or not."""
    return Shape(pick(rng, SHAPES), pick(rng, COLOURS))
