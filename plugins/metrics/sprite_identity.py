"""Whether the object is the sprite that the prompt asks for."""

from collections.abc import Mapping
from functools import partial

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import find_background
from ..pocket.measure.identity import identify
from ..pocket.task import Task
from ._pocket import OfTask, pixels, wish


@frozen
class SpriteIdentity(OfTask):
    """Whether the object is the prompt's sprite, and not another in its colours, in [0, 1]

    1 is the sprite, as whole as pocket's codec leaves one; 0 is what a distractor explains as
    well: another layout or a plain shape in the same colours, or the colours exchanged. Template
    and distractors are each tried at every place and scale (0.8 to 1.25) around the object, and
    the colours are decorrelated first, or white and pink would count as one. Also the share of
    the object in the sprite's `colours`, which the score never exceeds; the `margin` over the best
    distractor; and `correlation`, with the template in RGB. Trust a score only where the
    correlation is above 0.9: a broken sprite may still be nobody else's.

    `task` is a folder that `jt-pocket draw` wrote: "sks" in a prompt is its subject. A prompt that
    does not determine a sprite has no value. Blind to the background and to a second object;
    fooled by a sprite that differs in a cell or two, which scores above one half.
    """

    def load(self, device: torch.device) -> Metric:
        return partial(measure, self.read())


def measure(task: Task, sample: Sample) -> Mapping[str, float]:
    sprite = wish(sample, task).sprite
    if sprite is None:
        return {}
    video = pixels(sample.video)
    found = identify(video, sprite, find_background(video))
    return {
        "sprite_identity": found.score,
        "correlation": found.correlation,
        "margin": found.margin,
        "colours": found.colours,
    }


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"sprite_identity": SpriteIdentity}
