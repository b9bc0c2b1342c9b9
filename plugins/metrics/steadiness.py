"""Whether the object moves smoothly on some path of the world."""

from collections.abc import Mapping

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import find_background
from ..pocket.measure.paths import jitter, seen, steadiness
from ..pocket.measure.tracking import track
from ._pocket import pixels


@frozen
class Steadiness:
    """How near the object keeps to some path of the world, in [0, 1], whichever it is

    1 - `jitter_px` / 1 px, not below 0: the jitter is the mean distance of the silhouette's centre
    from the nearest path of any motion, or its opposite, standing still among them; 1 px is how far
    the paths of two motions are apart at the least. Frames without an object count as 0.

    Needs nothing of the prompt. Blind to whether the motion is the right one, to flickering of
    the look where the silhouette stays, and to smooth motions slower than the world's; jitter can
    be fooled to about half its size, since the nearest path is taken after the fact. A video of
    one frame has no value.
    """

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    video = pixels(sample.video)
    if video.shape[1] == 1:
        return {}
    path = track(video, find_background(video))
    off = {"jitter_px": jitter(path)} if seen(path) else {}
    return {"steadiness": steadiness(path), **off}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"steadiness": Steadiness}
