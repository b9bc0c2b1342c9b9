"""Flow and tracks that need no weights: OpenCV's DIS and its pyramidal Lucas-Kanade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ._tracks import Tracks, grid_of_points

LEAST_SIDE = 32  # pixels: smaller frames have no room for DIS's patches
WINDOW = 15  # pixels, of the square that Lucas-Kanade matches
LEVELS = 3  # of its pyramid, above the frame itself
BACK = 1.0  # pixels: a point is lost where going back misses its start by more


class DIS:
    """Dense inverse search (https://arxiv.org/abs/1603.03590) down to single pixels, with its
    variational refinement: OpenCV's "medium" preset, but for the finest scale"""

    def __call__(self, video: Tensor) -> Iterator[Tensor]:  # (3, F, H, W) in [0, 1] -> (2, H, W)
        """Flow in pixels, right and down, of each frame to the next: float32."""
        import cv2

        search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(0)
        height, width = video.shape[2:]
        lacking = [max(LEAST_SIDE - side, 0) for side in (height, width)]
        last = None
        for frame in _gray(video):
            frame = np.pad(frame, [(0, more) for more in lacking], mode="edge")
            if last is not None:
                flow = search.calc(last, frame, None)[:height, :width]
                yield torch.from_numpy(flow.copy()).movedim(-1, 0)
            last = frame


@frozen
class LucasKanade:
    """A grid of points of the first frame, followed from frame to frame; a point whose way back
    misses its start is lost for good"""

    grid: int  # points a side

    def __call__(self, video: Tensor) -> Tracks:  # (3, F, H, W) in [0, 1]
        frames = _gray(video)
        last = next(frames)
        points = grid_of_points(self.grid, *video.shape[2:])
        seen = np.ones(len(points), bool)
        places, visible = [points], [seen]
        for frame in frames:
            points, seen = points.copy(), seen.copy()
            if seen.any():
                points[seen], seen[seen] = _follow(last, frame, points[seen])
            places.append(points)
            visible.append(seen)
            last = frame
        return Tracks(np.stack(places), np.stack(visible))


def dis_identity() -> dict[str, Any]:
    return {"name": "dis", "library": _version(), "preset": "medium", "finest_scale": 0}


def lucas_kanade_identity() -> dict[str, Any]:
    how = {"window_px": WINDOW, "levels": LEVELS, "back_px": BACK}
    return {"name": "lucas_kanade", "library": _version(), **how}


def _follow(last: NDArray, frame: NDArray, points: NDArray) -> tuple[NDArray, NDArray]:
    """Where points (N, 2) go from one frame (H, W) to the next, and which (N,) also come back;
    the others stay."""
    import cv2

    options = {"winSize": (WINDOW, WINDOW), "maxLevel": LEVELS}
    ahead, found, _ = cv2.calcOpticalFlowPyrLK(last, frame, points[:, None], None, **options)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(frame, last, ahead, None, **options)
    missed = np.linalg.norm(back[:, 0] - points, axis=1)
    kept = (found[:, 0] > 0) & (returned[:, 0] > 0) & (missed <= BACK)
    return np.where(kept[:, None], ahead[:, 0], points), kept


def _gray(video: Tensor) -> Iterator[NDArray]:  # (3, F, H, W) in [0, 1] -> uint8 (H, W)
    import cv2

    for index in range(video.shape[1]):
        frame = (video[:, index] * 255).round().clamp(0, 255).byte().movedim(0, -1)
        yield cv2.cvtColor(frame.cpu().contiguous().numpy(), cv2.COLOR_RGB2GRAY)


def _version() -> str:
    import cv2

    return f"opencv {cv2.__version__}"
