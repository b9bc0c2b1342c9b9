"""What pretraining never sees, so that a customised model can be told from a base that knew it."""

from __future__ import annotations

from .creatures import Creature, assemble, differing_cells
from .motions import HELD_OUT as HELD_OUT_MOTIONS
from .sprites import Shape, Sprite

NEAR = 3  # of 15 cells: a layout that differs from a held-out one in no more is held out too

NAMEABLE = {  # put together of parts that pretraining knows, in combinations that it does not
    "blick": assemble("eared snouted belted tailed", ("red", "white")),
    "dax": assemble("horned beaked collared booted", ("green", "orange")),
    "wug": assemble("crowned masked winged rooted", ("yellow", "purple")),
    "zot": assemble("maned cheeky ribbed toed", ("white", "pink")),
}
NAMELESS = {  # of rows that no word means
    "fep": Creature((".aa", "beb", "a.a", "abb", "a.."), ("blue", "yellow")),
    "gorp": Creature(("a.b", "aeb", ".ab", "baa", "b.a"), ("pink", "green")),
    "lunk": Creature(("aab", ".ea", "bba", ".ab", "bb."), ("purple", "white")),
    "tove": Creature((".ba", "ae.", "aba", "b.a", "ba."), ("orange", "blue")),
}
SUBJECTS = NAMEABLE | NAMELESS
PAIRS = {frozenset(subject.colours) for subject in SUBJECTS.values()}
COMBINATIONS = {  # (colour, shape): each word is common, only together they are unseen
    ("pink", "ring"),
    ("green", "moon"),
    ("purple", "square"),
    ("orange", "cross"),
    ("white", "triangle"),
    ("blue", "ball"),
}


def is_held_out(sprite: Sprite) -> bool:
    """Whether pretraining must not show `sprite`: a held-out creature, or one like it."""
    if isinstance(sprite, Shape):
        return (sprite.colour, sprite.name) in COMBINATIONS
    layouts = (subject.rows for subject in SUBJECTS.values())
    near = any(differing_cells(sprite.rows, rows) <= NEAR for rows in layouts)
    return near or frozenset(sprite.colours) in PAIRS


def assert_is_seen(sprite: Sprite, motion: str) -> None:
    """Raise AssertionError if pretraining is about to show what is held out."""
    assert motion not in HELD_OUT_MOTIONS, f"held-out motion {motion!r} in pretraining"
    assert not is_held_out(sprite), f"held-out sprite {sprite} in pretraining"
