"""Whether the backgrounds of the motion's clips come back."""

from collections.abc import Mapping
from functools import partial

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import leak
from ..pocket.task import Task
from ._pocket import OfTask, pixels, wish


@frozen
class BackgroundLeak(OfTask):
    """How much of a motion clip's background is there instead of the prompt's, in [0, 1]

    0 is no leak, 1 is all leaked, and a blend of the two is the blend's own share: how far the
    ground has gone from the prompt's background to a clip's, by least squares, mean over frames. A
    clip's pattern in the prompt's colour and its colour in the prompt's pattern are leaks too; the
    greatest share of all counts. A background that is no leak does not count, though it may lie
    in that direction.

    `task` is a folder that `jt-pocket draw` wrote. A prompt without a background has no value, nor
    one that asks for the only background that the clips have. Blind to the square of 12 px around
    the object. Of several clips each is held against the ground alone: what two leave together is
    counted in part, and pure noise is gray on the average.
    """

    def load(self, device: torch.device) -> Metric:
        return partial(measure, self.read())


def measure(task: Task, sample: Sample) -> Mapping[str, float]:
    background = wish(sample, task).background
    others = [other for other in task.backgrounds if other != background]
    if background is None or not others:
        return {}
    return {"background_leak": leak(pixels(sample.video), background, others)}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"background_leak": BackgroundLeak}
