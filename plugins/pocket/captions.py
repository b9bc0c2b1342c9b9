"""The caption grammar: "a red ball moves left at mid on checkered gray"."""

from __future__ import annotations

import numpy as np
from attrs import frozen

from .motions import ANCHORS, HELD_OUT, PHRASES
from .sprites import COLOURS, GROUNDS, PATTERNS, SHAPES
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
    parts = [scene.sprite.look, scene.sprite.name, phrase, scene.background.words]
    for index in np.flatnonzero(rng.random(len(parts)) < noise.rare):
        rare = RARE[rng.integers(len(RARE))]
        parts[index] = f"moves {rare}" if index == 2 and rng.random() < 0.5 else rare
    look, name, motion, background = parts
    anchor = "" if rng.random() < noise.place else scene.anchor
    return sentence(look, name, motion, anchor, background)


def sentence(look: str, name: str, motion: str, anchor: str, background: str) -> str:
    """One caption of the grammar; an empty `anchor` leaves the place unsaid."""
    place = f"at {anchor} " if anchor else ""
    article = "an" if look[0] in "aeiou" else "a"
    return f"{article} {look} {name} {motion} {place}on {background}"


def vocabulary() -> list[str]:
    """Every word of the grammar, once, in a fixed order."""
    phrases = [
        phrase for named in (PHRASES, HELD_OUT) for among in named.values() for phrase in among
    ]
    texts = [
        "a an and at on creature",
        *COLOURS,
        *SHAPES,
        *GROUNDS,
        *PATTERNS,
        *ANCHORS,
        *phrases,
        *RARE,
    ]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def _phrases(scene: Scene) -> tuple[str, ...]:
    return PHRASES.get(scene.motion) or HELD_OUT[scene.motion]
