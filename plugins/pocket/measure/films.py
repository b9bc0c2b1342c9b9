"""Videos that are right or wrong in a known way, to validate metrics with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from attrs import evolve, frozen

from jtcore.media import read_sample, write_video

from ..codec import PatchCodec
from ..motions import ANCHORS, PERIOD
from ..sprites import GROUNDS, Background, Shape, Sprite
from ..tones import COLOURS
from ..world import SIZE, Scene
from .identity import draw_look_alike
from .likeness import draw
from .paths import MOTIONS

CODEC = Path(__file__).parent.parent / "weights" / "codec"

Part = tuple[Sprite, np.ndarray]  # what is drawn, and its centres (F, 2) px


@frozen
class Case:
    """A scene that a prompt asks for, and what may leak into it"""

    scene: Scene
    performer: Sprite
    clips: tuple[Background, ...]  # before which the performers move
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def centres(self) -> np.ndarray:  # (F, 2) px
        return self.scene.centres()


def film(parts: Sequence[Part], background: Background) -> np.ndarray:  # (3, F, SIZE, SIZE)
    """Sprites where they are said to be, later ones in front."""
    video = np.repeat(background.pixels(SIZE)[:, None], PERIOD, 1)
    for sprite, centres in parts:
        video = drawn_over(video, sprite, centres)
    return video


def drawn_over(
    video: np.ndarray, sprite: Sprite, centres: np.ndarray, scale: float = 1.0
) -> np.ndarray:
    """A sprite before what a video (3, F, SIZE, SIZE) shows, at its centres (F, 2) px."""
    drawn = np.stack([draw(sprite, centre, scale, SIZE) for centre in centres], 1)
    return drawn[:3] + video * (1 - drawn[3:])


def through_codec(video: np.ndarray, codec: PatchCodec | None = None) -> np.ndarray:
    """What a codec, pocket's unless given, leaves of it: (3, F, SIZE, SIZE), twice."""
    codec = codec or _codec()
    pixels = torch.from_numpy(video * 2 - 1)[None].float()
    return (codec.decode(codec.encode(pixels)).clamp(-1, 1) / 2 + 0.5)[0].numpy()


def as_file(video: np.ndarray) -> np.ndarray:  # (3, F, H, W) -> enlarged
    """What is read back of it from an mp4, as a run leaves it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        write_video(file, torch.from_numpy(video), fps=PERIOD)
        return read_sample(file)[0].numpy()


def true(case: Case) -> np.ndarray:
    """What the prompt asks for."""
    return film([(case.scene.sprite, case.centres)], case.scene.background)


def look_alike(case: Case) -> np.ndarray:
    """Another creature in the same colours, not one of the distractors that are compared."""
    rng = np.random.default_rng((case.seed, 1))
    return with_sprite(case, draw_look_alike(case.scene.sprite, rng))


def exchanged(case: Case) -> np.ndarray:
    """The subject with its two colours exchanged."""
    sprite = case.scene.sprite
    return with_sprite(case, evolve(sprite, colours=sprite.colours[::-1]))


def recoloured(case: Case) -> np.ndarray:
    """The subject with one of its two colours replaced."""
    sprite = case.scene.sprite
    others = [colour for colour in COLOURS if colour not in sprite.colours]
    colours = (sprite.colours[0], others[case.rng.integers(len(others))])
    return with_sprite(case, evolve(sprite, colours=colours))


def ball(case: Case) -> np.ndarray:
    """A plain ball in the subject's first colour."""
    return with_sprite(case, Shape("ball", case.scene.sprite.colours[0]))


def performer(case: Case) -> np.ndarray:
    """The motion's performer in the subject's place."""
    return with_sprite(case, case.performer)


def other_motion(case: Case) -> np.ndarray:
    """The subject on the path of another motion, any but standing."""
    others = [m for m in MOTIONS if m not in (case.scene.motion, "stays")]
    scene = evolve(case.scene, motion=others[case.rng.integers(len(others))])
    return true(evolve(case, scene=scene))


def opposite(case: Case) -> np.ndarray:
    """The path turned by half a circle: what goes left goes right."""
    place = np.array(ANCHORS[case.scene.anchor])
    return film([(case.scene.sprite, 2 * place - case.centres)], case.scene.background)


def frozen_object(case: Case) -> np.ndarray:
    """The first frame, again and again."""
    return np.repeat(true(case)[:, :1], PERIOD, 1)


def two_objects(case: Case) -> np.ndarray:
    """The performer stands in a corner as well."""
    parts = [(case.performer, _free_corner(case)), (case.scene.sprite, case.centres)]
    return film(parts, case.scene.background)


def small_ball(case: Case) -> np.ndarray:
    """A ball of half a sprite's size stands in a corner as well."""
    ball = Shape("ball", list(COLOURS)[case.rng.integers(len(COLOURS))])
    return drawn_over(true(case), ball, _free_corner(case), scale=0.5)


def twice(case: Case) -> np.ndarray:
    """The subject stands in two opposite corners, just alike."""
    parts = [(case.scene.sprite, np.full((PERIOD, 2), place)) for place in (6.0, 18.0)]
    return film(parts, case.scene.background)


def leaked_background(case: Case) -> np.ndarray:
    """The subject before what a clip shows."""
    background = case.clips[case.seed % len(case.clips)]
    return film([(case.scene.sprite, case.centres)], background)


def half_leaked_background(case: Case) -> np.ndarray:
    """Half of the way to what a clip shows, in every pixel of the ground."""
    return (true(case) + leaked_background(case)) / 2


def leaked_pattern(case: Case) -> np.ndarray:
    """The prompt's colour, in the pattern of a clip that has another, if one does."""
    asked = case.scene.background
    patterns = [clip.pattern for clip in case.clips if clip.pattern != asked.pattern]
    pattern = patterns[case.seed % len(patterns)] if patterns else asked.pattern
    return film([(case.scene.sprite, case.centres)], evolve(asked, pattern=pattern))


def another_background(case: Case) -> np.ndarray:
    """Another colour, neither the prompt's nor a clip's, in the prompt's pattern."""
    taken = {background.colour for background in (case.scene.background, *case.clips)}
    others = [colour for colour in GROUNDS if colour not in taken]
    colour = others[case.rng.integers(len(others))]
    return film([(case.scene.sprite, case.centres)], evolve(case.scene.background, colour=colour))


def jittering(case: Case, deviation: float = 1.0) -> np.ndarray:
    """Normal noise of this deviation, in px along each axis, on the places."""
    off = deviation * case.rng.standard_normal(case.centres.shape)
    return film([(case.scene.sprite, case.centres + off)], case.scene.background)


def noisy(case: Case, deviation: float = 0.1) -> np.ndarray:
    """Normal noise of this deviation on the pixels."""
    noise = deviation * case.rng.standard_normal((3, PERIOD, SIZE, SIZE))
    return (true(case) + noise).clip(0, 1).astype(np.float32)


def noise(case: Case) -> np.ndarray:
    """Nothing but uniform noise."""
    return case.rng.random((3, PERIOD, SIZE, SIZE)).astype(np.float32)


def nothing(case: Case) -> np.ndarray:
    """The background alone."""
    return film([], case.scene.background)


def with_sprite(case: Case, sprite: Sprite) -> np.ndarray:
    """Another sprite in the subject's place."""
    return true(evolve(case, scene=evolve(case.scene, sprite=sprite)))


def _free_corner(case: Case) -> np.ndarray:  # (F, 2) px
    """The corner that the subject keeps furthest from, in every frame."""
    corners = np.array([(y, x) for y in (5.0, 19.0) for x in (5.0, 19.0)])
    nearest = np.abs(corners[:, None] - case.centres).max(-1).min(1)
    return np.repeat(corners[nearest.argmax()][None], PERIOD, 0)


@cache
def _codec() -> PatchCodec:
    return PatchCodec.from_pretrained(CODEC)


def _passed(make: Callable[[Case], np.ndarray]) -> Callable[[Case], np.ndarray]:
    return lambda case: through_codec(make(case))


KINDS = {  # as pocket's codec shows them, but for the first and the last two
    "true": true,
    "true, through the codec": _passed(true),
    "the same, as mp4": lambda case: as_file(through_codec(true(case))),
    "look-alike, same colours": _passed(look_alike),
    "subject, colours exchanged": _passed(exchanged),
    "subject, one colour replaced": _passed(recoloured),
    "plain ball in its colour": _passed(ball),
    "the motion's performer": _passed(performer),
    "another motion": _passed(other_motion),
    "opposite direction": _passed(opposite),
    "frozen": _passed(frozen_object),
    "two objects": _passed(two_objects),
    "a small ball beside it": _passed(small_ball),
    "the subject twice": _passed(twice),
    "a clip's background": _passed(leaked_background),
    "half of a clip's background": _passed(half_leaked_background),
    "a clip's pattern": _passed(leaked_pattern),
    "another background": _passed(another_background),
    "jittering by 1 px": _passed(jittering),
    "nothing": _passed(nothing),
    "noise of 0.1 on it": noisy,
    "noise alone": noise,
}
