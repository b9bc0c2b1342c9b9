"""What a prompt asks for, read by the grammar of captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from .captions import RARE
from .creatures import PARTS, TRIMS, Creature, assemble
from .motions import ANCHORS, HELD_OUT, PHRASES
from .sprites import GROUNDS, PATTERNS, SHAPES, Background, Shape, Sprite
from .tones import COLOURS

UNSAID = set(RARE) - set(HELD_OUT)  # words that stand for what is not said
KINDS = {*SHAPES, "creature"}


@frozen
class Wish:
    """What a prompt asks for; None is what it does not say, or not in full"""

    sprite: Sprite | None = None
    motion: str | None = None
    anchor: str | None = None
    background: Background | None = None


def read_prompt(prompt: str, named: Mapping[str, Sprite] | None = None) -> Wish:
    """Read "a red ball moves left at mid on checkered gray"; `named` are words for sprites.

    Nothing is guessed: of a creature, colours and all four parts must be there.
    """
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    look = words[: _first(words, ("at", "on"))]
    return Wish(
        _sprite(look, named or {}),
        _motion(look),
        _anchor(words),
        _background(words),
    )


def _sprite(words: Sequence[str], named: Mapping[str, Sprite]) -> Sprite | None:
    called = {named[word] for word in words if word in named}
    if called:
        return called.pop() if len(called) == 1 else None
    if set(words) & UNSAID:
        return None
    kinds = [word for word in words if word in KINDS]
    colours = [word for word in words if word in COLOURS]
    trims = [colour for colour, word in TRIMS.items() if word in words]
    if len(kinds) != 1 or len(colours) != 1 or len(trims) != (kinds == ["creature"]):
        return None
    return _creature(words, colours[0], *trims) if trims else Shape(kinds[0], colours[0])


def _creature(words: Sequence[str], colour: str, trim: str) -> Creature | None:
    parts = [[word for word in words if word in kind] for kind in PARTS.values()]
    if any(len(said) != 1 for said in parts):
        return None
    return assemble(" ".join(said[0] for said in parts), (colour, trim))


def _motion(words: Sequence[str]) -> str | None:
    text = f" {' '.join(words)} "
    found = {
        motion
        for motion, phrases in (*PHRASES.items(), *HELD_OUT.items())
        if any(f" {phrase} " in text for phrase in phrases)
    }
    return found.pop() if len(found) == 1 else None


def _background(words: Sequence[str]) -> Background | None:
    said = words[_first(words, ("on",)) + 1 :]
    pattern = said[0] if said and said[0] in PATTERNS else "plain"
    colour = next(iter(said[pattern != "plain" :]), None)
    return Background(colour, pattern) if colour in GROUNDS else None


def _anchor(words: Sequence[str]) -> str | None:
    said = next(iter(words[_first(words, ("at",)) + 1 :]), None)
    return said if said in ANCHORS else None


def _first(words: Sequence[str], among: Sequence[str]) -> int:
    return next((index for index, word in enumerate(words) if word in among), len(words))
