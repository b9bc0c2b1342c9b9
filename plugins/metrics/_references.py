"""The pictures and clips that generated videos are compared to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jtcore.data import source_files
from jtcore.decode import is_readable_kind, read_frames, read_image, timeline
from jtcore.errors import JtError

if TYPE_CHECKING:
    from torch import Tensor

SETS = {"subject": "pictures of the subject", "motion": "clips of the motion"}


def reference_problems(option: str, place: str | None) -> list[str]:
    """What keeps the files of `subject` or `motion` from being found, each with its option."""
    if place is None:
        return [
            f"{option}: is not given, and nothing fills it; name the folder of {SETS[option]} here,"
            f" or with `jt-eval --{option}`"
        ]
    try:
        found_in(place)
    except JtError as error:
        return [f"{option}: {problem}" for problem in error.problems]
    return []


def found_in(place: str) -> list[Path]:
    """Pictures and clips of a folder, without those below it, of a pattern, or the file itself, in
    order of name. Raises JtError."""
    files = [path for path in source_files(place) if is_readable_kind(path)]
    if not files:
        raise JtError(f"{place!r} has no picture or video")
    return files


def first_frames(place: str) -> list[Tensor]:  # uint8 (3, H, W) each
    """The picture, or the first frame of what moves, of each file. Raises JtError."""
    return [read_image(path)[:, 0] for path in found_in(place)]


def all_frames(place: str) -> Iterator[Tensor]:  # uint8 (3, H, W) each
    """Of each file in turn. Raises JtError."""
    for path in found_in(place):
        for _, pixels in read_frames(path, range(len(timeline(path).starts))):
            yield pixels[:, 0]
