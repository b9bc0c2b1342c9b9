"""Whether the backgrounds of the motion's clips come back."""

from collections.abc import Mapping
from functools import partial

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import leak
from ..pocket.task import Task
from ._pocket import open_task, pixels, task_problems, wish


@frozen
class BackgroundLeak:
    """How much of the ground is a motion clip's background instead of the prompt's, in [0, 1]

    0 is no leak, 1 is all leaked: the share of pixels that are within 0.2 of a clip's background,
    and no nearer to any other of the 28, where it differs from the prompt's; the greatest over the
    clips.

    `task` is a folder that `jt-pocket draw` wrote. A prompt without a background has no value, nor
    one that asks for the only background that the clips have. Blind to the square of 12 px around
    the object; a ground that shares a tone with a clip's, plain with patterned, counts in part.
    """

    task: str

    def problems(self) -> list[str]:
        return task_problems(self.task)

    def load(self, device: torch.device) -> Metric:
        return partial(measure, open_task(self.task))


def measure(task: Task, sample: Sample) -> Mapping[str, float]:
    background = wish(sample, task).background
    others = [other for other in task.backgrounds if other != background]
    if background is None or not others:
        return {}
    return {"background_leak": leak(pixels(sample.video), background, others)}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"background_leak": BackgroundLeak}
