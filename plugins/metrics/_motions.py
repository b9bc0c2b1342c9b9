"""The clips of the motion that generated videos are to show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jtcore.errors import JtError

from ._references import found_in, reference_problems

if TYPE_CHECKING:
    from torch import Tensor


def motion_problems(motion: str | None) -> list[str]:
    """What keeps the clips from being found."""
    return reference_problems("motion", motion)


def motion_files(motion: str | None) -> list[Path]:
    """Raises JtError."""
    return found_in(motion) if motion else []


def motion_clips(motion: str) -> Iterator[tuple[Tensor, float]]:
    """Of each file with two frames or more: (3, F, H, W) in [0, 1], and frames per second. Raises
    JtError where there is none."""
    from jtcore.media import read_sample

    none = True
    for path in found_in(motion):
        video, fps = read_sample(path)
        if video.shape[1] > 1:
            none = False
            yield video, fps
    if none:
        raise JtError(f"motion: {motion!r} has no clip of two frames or more")
