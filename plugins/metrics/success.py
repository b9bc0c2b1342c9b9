"""Whether a video shows all that the prompt asks for."""

from collections.abc import Mapping
from functools import partial

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.success import judge
from ..pocket.task import Task
from ._pocket import OfTask, pixels, wish


@frozen
class Success(OfTask):
    """1 where sprite, motion and background are right at once and nothing else is there, else 0

    The strict rule: sprite_identity of 0.5 or more, with a correlation above 0.9 and 0.75 or more
    of the object in the sprite's colours; sprite_motion of 0.5 or more, with an object in every
    frame and an error below 1 px; background_adherence of 0.9 or more; single_object of 1. Its
    parts are there as well: `identity`, `motion`, `background` and `single`, 0 or 1 each.

    `task` is a folder that `jt-pocket draw` wrote: "sks" in a prompt is its subject. A prompt that
    leaves one of the three unsaid, and a video of one frame, have no value. Blind to a second
    object of less than 12 px, and to one so near that both fit into a square of 12 px.
    """

    def load(self, device: torch.device) -> Metric:
        return partial(measure, self.read())


def measure(task: Task, sample: Sample) -> Mapping[str, float]:
    asked, video = wish(sample, task), pixels(sample.video)
    if None in (asked.sprite, asked.motion, asked.background) or video.shape[1] == 1:
        return {}
    found = judge(video, asked.sprite, asked.motion, asked.background)
    return {
        "success": float(found.all),
        "identity": float(found.identity),
        "motion": float(found.motion),
        "background": float(found.background),
        "single": float(found.single),
    }


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"success": Success}
