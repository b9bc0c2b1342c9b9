"""What pretraining never sees, so that a customised model can be told from a base that knew it."""

from __future__ import annotations

from .motions import HELD_OUT as HELD_OUT_MOTIONS
from .sprites import Creature, Shape, Sprite

NEAR = 3  # of 15 cells: a layout that differs from a held-out one in no more is held out too

SUBJECTS = {
    "blick": Creature(("..b", "aea", "aab", ".aa", "a.b"), ("red", "white")),
    "dax": Creature(("b.a", ".ea", "bab", "aaa", ".b."), ("green", "orange")),
    "fep": Creature((".aa", "beb", "a.a", "abb", "a.."), ("blue", "yellow")),
    "gorp": Creature(("a.b", "aeb", ".ab", "baa", "b.a"), ("pink", "green")),
    "lunk": Creature(("aab", ".ea", "bba", ".ab", "bb."), ("purple", "white")),
    "wug": Creature(("b..", "bea", "..a", "abb", "aab"), ("yellow", "purple")),
    "tove": Creature((".ba", "ae.", "aba", "b.a", "ba."), ("orange", "blue")),
    "zot": Creature(("bba", "aeb", "a.b", ".bb", "a.a"), ("white", "pink")),
}
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


def differing_cells(rows: tuple[str, ...], others: tuple[str, ...]) -> int:
    """How many cells of the drawn halves differ."""
    return sum(a != b for a, b in zip("".join(rows), "".join(others), strict=True))


def assert_is_seen(sprite: Sprite, motion: str) -> None:
    """Raise AssertionError if pretraining is about to show what is held out."""
    assert motion not in HELD_OUT_MOTIONS, f"held-out motion {motion!r} in pretraining"
    assert not is_held_out(sprite), f"held-out sprite {sprite} in pretraining"
