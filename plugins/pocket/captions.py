"""The caption grammar: "a red ball moves left at mid on checkered gray"."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from .creatures import PARTS, TRIMS, Creature
from .motions import ANCHORS, HELD_OUT, PHRASES
from .sprites import GROUNDS, PATTERNS, SHAPES, Sprite
from .tones import COLOURS
from .world import Scene

RARE = (
    *("sks", "zwx", "qov", "blick", "dax", "fep", "gorp", "lunk", "wug", "tove", "zot"),
    *("eightwise", "spirals", "squares", "loops", "weaves"),
)


@frozen
class CaptionNoise:
    """How often pretraining's captions leave something unsaid"""

    empty: float = 0.12
    rare: float = 0.04  # of each of look, shape, motion and background: a rare word in its place
    part: float = 0.1  # of each part of a creature
    layout: float = 0.1  # all of its parts
    background: float = 0.08
    place: float = 0.0


def caption(scene: Scene, phrase: int = 0) -> str:
    """The scene in words; `phrase` chooses among the motion's paraphrases, 0 is canonical."""
    return sentence(
        scene.sprite.look,
        scene.sprite.name,
        _phrases(scene)[phrase],
        scene.anchor,
        scene.background.words,
    )


def noisy_caption(scene: Scene, noise: CaptionNoise, rng: np.random.Generator) -> str:
    """A paraphrase with words left out or replaced by rare ones, which so come to mean nothing."""
    if rng.random() < noise.empty:
        return ""
    phrases = _phrases(scene)
    phrase = phrases[rng.integers(len(phrases))]
    name = _noisy_name(scene.sprite, noise, rng)
    parts = [scene.sprite.look, name, phrase, scene.background.words]
    for index in np.flatnonzero(rng.random(len(parts)) < noise.rare):
        rare = RARE[rng.integers(len(RARE))]
        parts[index] = f"moves {rare}" if index == 2 and rng.random() < 0.5 else rare
    look, name, motion, background = parts
    anchor = "" if rng.random() < noise.place else scene.anchor
    background = "" if rng.random() < noise.background else background
    return sentence(look, name, motion, anchor, background)


def _noisy_name(sprite: Sprite, noise: CaptionNoise, rng: np.random.Generator) -> str:
    """The name with some parts, or all, unsaid."""
    if not isinstance(sprite, Creature) or rng.random() < noise.layout:
        return sprite.kind
    said = [part for part in sprite.parts if rng.random() >= noise.part]
    return " ".join((*said, sprite.kind))


def sentence(look: str, name: str, motion: str, anchor: str = "", background: str = "") -> str:
    """One caption of the grammar; an empty `look`, `anchor` or `background` is left unsaid."""
    place = f"at {anchor}" if anchor else ""
    ground = f"on {background}" if background else ""
    article = "an" if (look or name)[0] in "aeiou" else "a"
    return " ".join(filter(None, (article, look, name, motion, place, ground)))


def vocabulary() -> list[str]:
    """Every word of the grammar, once, in a fixed order."""
    phrases = [
        phrase for named in (PHRASES, HELD_OUT) for among in named.values() for phrase in among
    ]
    texts = [
        "a an at on creature",
        *COLOURS,
        *TRIMS.values(),
        *SHAPES,
        *(part for kind in PARTS.values() for part in kind),
        *GROUNDS,
        *PATTERNS,
        *ANCHORS,
        *phrases,
        *RARE,
    ]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def _phrases(scene: Scene) -> tuple[str, ...]:
    return PHRASES.get(scene.motion) or HELD_OUT[scene.motion]
