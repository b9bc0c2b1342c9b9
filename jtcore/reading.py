"""Words of prompts that adapters give a meaning, and what the text encoder reads in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from jtcore.errors import JtError

if TYPE_CHECKING:
    from jtcore.structure import Component


@frozen
class Place:
    """Where a replaced word stood: characters of what is read"""

    word: str
    start: int
    end: int


@frozen
class Reading:
    """What the text encoder reads of a prompt"""

    text: str
    places: tuple[Place, ...] = ()


def read(prompt: str, replaced: Mapping[str, str]) -> Reading:
    """A prompt with each of the `replaced` words, where it stands whole, read as what it maps to.

    What is read in a word's place is not searched for words again.
    """
    if not replaced:
        return Reading(prompt)
    words = sorted(replaced, key=len, reverse=True)
    pattern = rf"(?<!\w)({'|'.join(map(re.escape, words))})(?!\w)"
    text, places, done = "", [], 0
    for match in re.finditer(pattern, prompt):
        text += prompt[done : match.start()]
        word, start = match[0], len(text)
        text += replaced[word]
        places.append(Place(word, start, len(text)))
        done = match.end()
    return Reading(text + prompt[done:], tuple(places))


def replaced_words(adapters: Mapping[str, Component]) -> dict[str, str]:
    """The words that adapters replace, and what is read in their place. Raises JtError where two
    replace the same."""
    replaced: dict[str, str] = {}
    owners: dict[str, str] = {}
    problems = []
    for name, adapter in adapters.items():
        for word, reading in getattr(adapter.spec, "replaces", {}).items():
            if word in owners:
                problems.append(f"adapter.{name}: {word!r} is a word of adapter.{owners[word]} too")
            owners.setdefault(word, name)
            replaced[word] = reading
    if problems:
        raise JtError(problems)
    return replaced
