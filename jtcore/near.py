"""The help that a misspelt name gets."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'ait'?`, or all names that there are."""
    names = sorted(known)
    return nearest(word, names) or f"there are {', '.join(names) or 'none'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'ait'?`, or nothing where no name is near."""
    close = get_close_matches(word, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""
