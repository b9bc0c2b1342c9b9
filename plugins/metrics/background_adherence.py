"""Whether the background is the prompt's."""

from collections.abc import Mapping

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ..pocket.measure.grounds import adherence
from ._pocket import pixels, wish


@frozen
class BackgroundAdherence:
    """How much of the ground is the prompt's background, in [0, 1]

    The share of pixels that are within 0.2 of its colour and nearer to it than to another of the 28
    backgrounds, where the two differ; for that other one with which the share is least. So a plain
    ground where a checkered one was asked for is 0, though half of its pixels are right.

    A prompt without a background has no value. Blind to the square of 12 px around the object. A
    second object costs its share of the area.
    """

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    background = wish(sample).background
    if background is None:
        return {}
    return {"background_adherence": adherence(pixels(sample.video), background)}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"background_adherence": BackgroundAdherence}
