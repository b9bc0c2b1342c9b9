"""Whether the performers of the motion come back."""

from collections.abc import Mapping
from functools import partial

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import find_background
from ..pocket.measure.performers import appearance_leak
from ..pocket.task import Task
from ._pocket import OfTask, pixels, wish


@frozen
class AppearanceLeak(OfTask):
    """How much the object looks like a performer of the motion's clips, in [0, 1]

    0 is no leak, 1 is a performer in place of the prompt's sprite: what the object adds to the
    ground is explained by the sprite and a performer, each as strong as fits best; the share is the
    performer's strength, in a blend the blend's own; the greatest over the performers.

    `task` is a folder that `jt-pocket draw` wrote. A prompt that does not determine a sprite has
    no value; a video without an object has 0, as a perfect one has. Not absolute: an object that
    is neither sprite nor performer, a plain ball, is partly explained by performers of its colour.
    So read it beside `sprite_identity`.
    """

    def load(self, device: torch.device) -> Metric:
        return partial(measure, self.read())


def measure(task: Task, sample: Sample) -> Mapping[str, float]:
    sprite = wish(sample, task).sprite
    performers = [performer for performer in task.performers if performer != sprite]
    if sprite is None or not performers:
        return {}
    video = pixels(sample.video)
    share = appearance_leak(video, sprite, performers, find_background(video))
    return {"appearance_leak": share}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"appearance_leak": AppearanceLeak}
