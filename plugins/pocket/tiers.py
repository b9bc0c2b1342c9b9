"""Customisation tasks in tiers of difficulty: how a subject and a motion are shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import cycle

import numpy as np
from attrs import evolve

from .creatures import Creature, draw_assembled, draw_colours
from .held_out import is_held_out
from .motions import ANCHORS
from .sprites import GROUNDS, PATTERNS, Background, Sprite
from .task import TIERS, Task
from .world import Scene, draw_sprite

Look = tuple[str, str]


def draw_tasks(
    subject: str,
    motion: str,
    tier: str = "easy",
    seed: int = 0,
    pictures: int | None = None,  # as many as the tier has
    clips: int | None = None,
) -> tuple[Task, Task]:
    """The task to be learned, and what is held out of it for validation: an easy one in every tier.

    The motion is shown by other performers, before other backgrounds, than the subject; and the
    held-out half has other performers again, with the backgrounds of subject and motion exchanged.
    """
    rng = np.random.default_rng(seed)
    grounds = [Background(str(colour)) for colour in rng.permutation(list(GROUNDS))]
    ours, theirs = grounds[:3], grounds[3:]
    empty = Task(subject, motion, tier, seed, pictures=(), clips=())
    shown = _filled(empty, (pictures, clips), (ours, theirs), rng)
    known = {_look(performer) for performer in shown.performers}
    held_out = evolve(empty, tier="easy")
    return shown, _filled(held_out, (pictures, clips), (theirs, ours), rng, known)


def _filled(
    task: Task,
    counts: tuple[int | None, int | None],
    grounds: tuple[Sequence[Background], Sequence[Background]],
    rng: np.random.Generator,
    but: Collection[Look] = (),
) -> Task:
    """The task with pictures and clips: `counts` of them, before `grounds`; no performer `but`."""
    tier = TIERS[task.tier]
    pictures, clips = (
        usual if count is None else count
        for count, usual in zip(counts, (tier.pictures, tier.clips), strict=True)
    )
    ours, theirs = grounds
    ours = [_patterned(ours[0], rng)] if tier.one_ground else ours
    shown = _scenes([task.sprite], "stays", ours, pictures, rng)
    theirs = [_patterned(theirs[0], rng)] if tier.one_performer else theirs
    performers = [_rival(task.sprite, rng)] if tier.one_performer else _others(clips, rng, but)
    return evolve(task, pictures=shown, clips=_scenes(performers, task.motion, theirs, clips, rng))


def _scenes(
    performers: Sequence[Sprite],
    motion: str,
    grounds: Sequence[Background],
    count: int,
    rng: np.random.Generator,
) -> tuple[Scene, ...]:
    """`performers` and `grounds` in turn, at different places."""
    shown = zip(anchors(count, rng), cycle(performers), cycle(grounds), strict=False)
    return tuple(Scene(performer, motion, anchor, ground) for anchor, performer, ground in shown)


def anchors(count: int, rng: np.random.Generator) -> list[str]:
    """The middle, then the others in random order, then over again."""
    others = [str(name) for name in rng.permutation(sorted(set(ANCHORS) - {"mid"}))]
    return [("mid", *others)[index % len(ANCHORS)] for index in range(count)]


def _patterned(ground: Background, rng: np.random.Generator) -> Background:
    return evolve(ground, pattern=str(rng.choice(PATTERNS[1:])))


def _others(count: int, rng: np.random.Generator, but: Collection[Look]) -> list[Sprite]:
    """Performers that pretraining knows, `but` some, no two alike."""
    performers: list[Sprite] = []
    while len(performers) < count:
        performer = draw_sprite(rng)
        if _look(performer) not in {*but, *map(_look, performers)}:
            performers.append(performer)
    return performers


def _rival(subject: Creature, rng: np.random.Generator) -> Creature:
    """A creature that pretraining knows, without a colour of `subject`: a leak can be seen."""
    while True:
        creature = draw_assembled(rng, draw_colours(rng))
        if not is_held_out(creature) and not set(creature.colours) & set(subject.colours):
            return creature


def _look(sprite: Sprite) -> Look:
    """What captions say of a sprite, by which people tell it from others."""
    return sprite.name, sprite.look
