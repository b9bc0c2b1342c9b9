"""Point tracks: what every tracker answers, and the options that choose one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from attrs import field, frozen
from attrs.validators import ge, in_
from numpy.typing import NDArray

from jtcore.evaluation.identity import file_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TrackerName = Literal["lucas_kanade", "cotracker"]


@frozen(eq=False)
class Tracks:
    """N points through T frames"""

    places: NDArray  # float (T, N, 2): pixels, x before y
    visible: NDArray  # bool (T, N)


Tracker = Callable[["Tensor"], Tracks]  # of a video (3, F, H, W) in [0, 1]


@frozen
class OfTracks:
    """The options of a metric of point tracks"""

    tracker: TrackerName = field(default="lucas_kanade", validator=in_(get_args(TrackerName)))
    model: str | None = None
    grid: int = field(default=55, validator=ge(2))
    batch: int = field(default=16, validator=ge(1))

    def __attrs_post_init__(self) -> None:
        if self.model is not None and self.tracker != "cotracker":
            raise ValueError(f'expected model with tracker = "cotracker", got {self.tracker!r}')

    def tracker_problems(self) -> list[str]:
        if self.tracker != "cotracker":
            return []
        from ._cotracker import PUBLISHED, cotracker_problems

        return cotracker_problems(self.model or PUBLISHED.hub)

    def tracker_files(self) -> list[Path]:
        """The network's, if it has one. Raises JtError."""
        if self.tracker != "cotracker":
            return []
        from ._cotracker import PUBLISHED

        return [PUBLISHED.find(self.model or PUBLISHED.hub)]

    def tracker_identity(self) -> dict[str, Any]:
        """Which tracker it is, and all that its tracks depend on besides the options."""
        if self.tracker == "cotracker":
            from ._cotracker import cotracker_identity

            (weights,) = self.tracker_files()
            return cotracker_identity() | {"weights": file_digest(weights)}
        from ._opencv import lucas_kanade_identity

        return lucas_kanade_identity()

    def load_tracker(self, device: torch.device) -> Tracker:
        """Raises JtError."""
        if self.tracker == "cotracker":
            from ._cotracker import load_cotracker

            (weights,) = self.tracker_files()
            return load_cotracker(weights, device, self.grid, self.batch)
        from ._opencv import LucasKanade

        return LucasKanade(self.grid)


def grid_of_points(size: int, height: int, width: int) -> NDArray:
    """float32 (size², 2), row by row: evenly spread over a frame but for a margin, a 64th of the
    width, as CoTracker's authors have it."""
    margin = width / 64
    rows = np.linspace(margin, height - 1 - margin, size)
    columns = np.linspace(margin, width - 1 - margin, size)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
