"""Whether the object goes where a box leads it."""

from collections.abc import Mapping

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import min_len

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..controls._boxes import Keyframe, box_at, in_order
from ..pocket.measure.grounds import find_background
from ..pocket.measure.tracking import track
from ..pocket.world import SIZE
from ._pocket import pixels


@frozen
class BoxFollowing:
    """How often the object is in a box that moves, in [0, 1], whatever it looks like

    The share of frames in which the silhouette's centre is in the box; frames without an object
    count as outside. `box_distance_px` is the mean distance from the box's centre, over frames with
    an object. `path` is that of a `box_attention` control; nothing else says where the box was, so
    it is to be the same.
    """

    path: tuple[Keyframe, ...] = field(validator=[min_len(1), in_order])

    def load(self, device: torch.device) -> Metric:
        return self._measure

    def _measure(self, sample: Sample) -> Mapping[str, float]:
        video = pixels(sample.video)
        centres, frames = track(video, find_background(video)), video.shape[1]
        times = [index / max(frames - 1, 1) for index in range(frames)]
        boxes = SIZE * np.array([box_at(self.path, time) for time in times])  # (F, 4) px
        starts, ends = boxes[:, :2], boxes[:, 2:]
        inside = ((centres >= starts) & (centres < ends)).all(1)
        found = {"box_following": float(inside.mean())}
        away = np.linalg.norm(centres - (starts + ends) / 2, axis=1)
        if np.isfinite(away).any():
            found["box_distance_px"] = float(np.nanmean(away))
        return found


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"box_following": BoxFollowing}
