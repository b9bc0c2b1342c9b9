"""Two-coloured pixel creatures, put together of parts that captions can name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from attrs import field, frozen
from attrs.validators import deep_iterable, in_

from .tones import COLOURS, EYE, FINE, SIDE, paint

T = TypeVar("T")

CELLS = 5  # a creature is CELLS x CELLS cells, mirrored left to right

TRIMS = {colour: f"{colour}-trimmed" for colour in COLOURS}  # the words for a second colour

PARTS = {  # from top to bottom: the rows of each
    "crown": {
        "horned": ("b..",),
        "eared": (".b.",),
        "tufted": ("..b",),
        "crowned": ("b.b",),
        "hatted": (".bb",),
        "maned": ("bba",),
    },
    "face": {
        "bare": ("aea",),
        "masked": ("beb",),
        "cheeky": ("bea",),
        "snouted": ("aeb",),
        "beaked": (".eb",),
    },
    "body": {
        "stout": ("aaa", "aaa"),
        "belted": ("aaa", "bbb"),
        "collared": ("bbb", "aaa"),
        "winged": ("baa", ".aa"),
        "ribbed": ("bab", "bab"),
        "speckled": ("aba", "baa"),
    },
    "legs": {
        "tailed": ("..b",),
        "clawed": ("b.b",),
        "booted": (".b.",),
        "skirted": ("bbb",),
        "rooted": ("aaa",),
        "toed": ("a.a",),
    },
}


@frozen
class Creature:
    """A mirrored pixel creature: `rows` hold its left half and its middle column

    `a` and `b` are cells of the first and of the second colour, `e` eyes, `.` what is left out.
    `parts` are the words for the rows, none where the layout has no words.
    """

    rows: tuple[str, ...]
    colours: tuple[str, str] = field(validator=deep_iterable(in_(COLOURS)))
    parts: tuple[str, ...] = field(default=(), eq=False)

    @property
    def kind(self) -> str:
        return "creature"

    @property
    def name(self) -> str:
        return " ".join((*self.parts, self.kind))

    @property
    def look(self) -> str:
        body, trim = self.colours
        return f"{body} {TRIMS[trim]}"

    def template(self) -> np.ndarray:  # (4, S, S), as Shape.template
        tones = {"a": COLOURS[self.colours[0]], "b": COLOURS[self.colours[1]], "e": EYE}
        cells = np.array([list(row + row[-2::-1]) for row in self.rows])  # (CELLS, CELLS)
        step = SIDE * FINE // CELLS
        fine = cells.repeat(step, 0).repeat(step, 1)
        return sum(paint(tone, (fine == cell).astype(np.float32)) for cell, tone in tones.items())


def assemble(words: str, colours: tuple[str, str]) -> Creature:
    """The creature of four parts, `words` naming them from top to bottom."""
    parts = tuple(words.split())
    rows = [PARTS[kind][part] for kind, part in zip(PARTS, parts, strict=True)]
    return Creature(tuple(row for part in rows for row in part), colours, parts)


def draw_assembled(rng: np.random.Generator, colours: tuple[str, str]) -> Creature:
    """A creature of random parts, with at least three cells of either colour."""
    while True:
        words = " ".join(pick(rng, kind) for kind in PARTS.values())
        creature = assemble(words, colours)
        if _has_both(creature.rows):
            return creature


def draw_nameless(rng: np.random.Generator, colours: tuple[str, str]) -> Creature:
    """A creature whose layout has no words: a core with eyes, other cells at random."""
    while True:
        cells = rng.choice(list(".ab"), size=(CELLS, CELLS // 2 + 1), p=(0.3, 0.4, 0.3))
        cells[1:4, -1] = np.where(cells[1:4, -1] == ".", "a", cells[1:4, -1])
        cells[1, 1] = "e"
        rows = tuple("".join(row) for row in cells)
        if _has_both(rows):
            return Creature(rows, colours)


def draw_colours(rng: np.random.Generator) -> tuple[str, str]:
    """Two colours that differ."""
    first, second = rng.permutation(list(COLOURS))[:2]
    return str(first), str(second)


def differing_cells(rows: Sequence[str], others: Sequence[str]) -> int:
    """How many cells of the drawn halves differ."""
    return sum(a != b for a, b in zip("".join(rows), "".join(others), strict=True))


def _has_both(rows: Sequence[str]) -> bool:
    cells = "".join(rows)
    return min(cells.count("a"), cells.count("b")) >= 3


def pick(rng: np.random.Generator, options: Iterable[T]) -> T:
    options = list(options)
    return options[rng.integers(len(options))]
