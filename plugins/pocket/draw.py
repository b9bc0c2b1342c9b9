"""Draw a customisation data set: pictures of a subject, videos of a motion, and captions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jtcore.errors import JtError
from jtcore.files import write_atomically, write_text
from jtcore.media import write_video

from .captions import caption, sentence
from .held_out import SUBJECTS
from .motions import ANCHORS, HELD_OUT
from .sprites import GROUNDS, Background, Sprite
from .world import Scene, draw_sprite, render

ENLARGED = 8  # times, for people to look at; what a trainer reads shrinks back to the world's size
FPS = 8
NAME = "sks"  # what captions call the subject

Look = tuple[str, str]


def draw(
    out: Path, subject: str, motion: str, seed: int = 0, pictures: int = 9, videos: int = 4
) -> None:
    """Write `out`/subject/NN.png and `out`/motion/NN.mp4, each with its caption in NN.txt.

    Nine pictures show the subject at every place. Pocket learns a sprite place by place: blocks of
    the codec cut it differently at each, and where it was not shown it is not learned.

    `out`/held_out/ has as many more of both for validation. Raises JtError where a folder holds
    files that would be left beside the drawn ones.
    """
    shown, held_out = data_sets(subject, motion, seed, pictures, videos)
    for folder, (subjects, motions) in ((out, shown), (out / "held_out", held_out)):
        _refuse_others(folder / "subject", pictures, ".png")
        _refuse_others(folder / "motion", videos, ".mp4")
        for index, scene in enumerate(subjects):
            _write_picture(folder / "subject" / f"{index:02}.png", render([scene], 1)[0])
            words = sentence(NAME, scene.sprite.name, "stays", scene.anchor, scene.background.words)
            write_text(folder / "subject" / f"{index:02}.txt", f"{words}\n")
        for index, scene in enumerate(motions):
            _write_video(folder / "motion" / f"{index:02}.mp4", render([scene])[0])
            write_text(folder / "motion" / f"{index:02}.txt", f"{caption(scene)}\n")


Scenes = tuple[list[Scene], list[Scene]]  # of the subject, of the motion


def data_sets(
    subject: str, motion: str, seed: int, pictures: int, videos: int
) -> tuple[Scenes, Scenes]:
    """What is trained on, and what is held out.

    The motion is shown by other performers, before other backgrounds, than the subject; and the
    held-out half has other performers again, with the backgrounds of subject and motion exchanged.
    """
    rng = np.random.default_rng(seed)
    grounds = [str(name) for name in rng.permutation(list(GROUNDS))]
    ours, theirs = grounds[:3], grounds[3:]
    shown = (
        subject_scenes(subject, ours, pictures, rng),
        motion_scenes(motion, theirs, videos, rng),
    )
    known = {_look(scene.sprite) for scene in shown[1]}
    held_out = (
        subject_scenes(subject, theirs, pictures, rng),
        motion_scenes(motion, ours, videos, rng, known),
    )
    return shown, held_out


def subject_scenes(
    subject: str, grounds: list[str], count: int, rng: np.random.Generator
) -> list[Scene]:
    """The subject standing at different anchors, on each of `grounds` in turn."""
    anchors = _anchors(count, rng)
    sprite = SUBJECTS[subject]
    return [
        Scene(sprite, "stays", anchor, Background(grounds[index % len(grounds)]))
        for index, anchor in enumerate(anchors)
    ]


def motion_scenes(
    motion: str,
    grounds: list[str],
    count: int,
    rng: np.random.Generator,
    but: Collection[Look] = (),
) -> list[Scene]:
    """Performers that pretraining knows, `but` some, doing the held-out `motion` on `grounds`."""
    assert motion in HELD_OUT, motion
    performers: list[Sprite] = []
    while len(performers) < count:
        performer = draw_sprite(rng)
        if _look(performer) not in {*but, *map(_look, performers)}:
            performers.append(performer)
    return [
        Scene(performer, motion, anchor, Background(grounds[index % len(grounds)]))
        for index, (performer, anchor) in enumerate(
            zip(performers, _anchors(count, rng), strict=True)
        )
    ]


def _look(sprite: Sprite) -> Look:
    """What captions say of a sprite, by which people tell it from others."""
    return sprite.name, sprite.look


def _anchors(count: int, rng: np.random.Generator) -> list[str]:
    """The middle, then the others in random order, then over again."""
    others = [str(name) for name in rng.permutation(sorted(set(ANCHORS) - {"mid"}))]
    return [("mid", *others)[index % len(ANCHORS)] for index in range(count)]


def _refuse_others(folder: Path, count: int, suffix: str) -> None:
    drawn = {f"{index:02}{end}" for index in range(count) for end in (suffix, ".txt")}
    others = sorted(path.name for path in folder.glob("*") if path.name not in drawn)
    if others:
        raise JtError(f"{folder}: holds {others[0]} of another data set; draw into an empty folder")


def _write_picture(path: Path, pixels: np.ndarray) -> None:  # (3, 1, H, W) in [-1, 1]
    with write_atomically(path) as aside:
        Image.fromarray(_enlarged(pixels)[0]).save(aside, format="png")


def _write_video(path: Path, pixels: np.ndarray) -> None:  # (3, F, H, W) in [-1, 1]
    write_video(path, torch.from_numpy(pixels / 2 + 0.5), FPS)


def _enlarged(pixels: np.ndarray) -> np.ndarray:  # (3, F, H, W) -> bytes (F, 8 H, 8 W, 3)
    shown = ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 3, 0)
    return np.ascontiguousarray(shown.repeat(ENLARGED, 1).repeat(ENLARGED, 2))
