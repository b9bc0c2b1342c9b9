"""Whether there is one object."""

from collections.abc import Mapping

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import find_background
from ..pocket.measure.tracking import count_objects, stray_area
from ._pocket import pixels


@frozen
class SingleObject:
    """The share of frames with exactly one object, in [0, 1]

    An object is 12 px or more of what is not the background, in a square of 12 px: pieces that fit
    into one such square are one object, for a creature's cells need not touch. `stray_px` is the
    area outside the fullest square, mean over frames.

    Needs nothing of the prompt. Blind to what the object is, and to two that touch or overlap so
    that they fit into one square; a background that is half one and half another counts as objects.
    """

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    video = pixels(sample.video)
    background = find_background(video)
    return {
        "single_object": float((count_objects(video, background) == 1).mean()),
        "stray_px": float(stray_area(video, background).mean()),
    }


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"single_object": SingleObject}
