"""Whether the object moves as the prompt says."""

from collections.abc import Mapping

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import find_background
from ..pocket.measure.paths import motion_score, path_error, seen
from ..pocket.measure.tracking import track
from ._pocket import pixels, wish


@frozen
class SpriteMotion:
    """Whether the object moves as the prompt says, in [0, 1], whatever it looks like

    1 - error / separation, not below 0. The error, `motion_error_px`, is the mean distance of the
    silhouette's centre from the true path, at the place where the path fits best: only the place
    is free, while direction, extent, phase and tempo count. The separation is how far the nearest
    other motion is, standing still among them (1 to 2.6 px): 0 is another motion or none, and
    above 0.5 no other motion of the world is nearer. Frames without an object count as 0.

    A prompt that names no motion, and a video of one frame, have no value. A clip of less than 8
    frames is compared to the path's beginning, of a longer one 8 frames are taken. Blind to what
    moves; fooled by two objects, of which the larger one in each frame is followed.
    """

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    motion, video = wish(sample).motion, pixels(sample.video)
    if motion is None or video.shape[1] == 1:
        return {}
    path = track(video, find_background(video))
    error = {"motion_error_px": path_error(path, motion)} if seen(path) else {}
    return {"sprite_motion": motion_score(path, motion), **error}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"sprite_motion": SpriteMotion}
