"""How little consecutive frames differ, as VBench has it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample


@frozen
class TemporalFlickering:
    """1 less the mean absolute difference of consecutive frames' pixels, in [0, 1]

    VBench's temporal flickering (https://arxiv.org/abs/2311.17982): 1 is a still video. Motion
    lowers it as flicker does: VBench asks for static scenes only, and DualReal for none. Needs no
    weights. A single frame has no value.
    """

    better: ClassVar[str] = "higher"

    def identity(self) -> Mapping[str, Any]:
        return {"frames": "all", "pixels": "RGB, 8 bits"}

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    frames = sample.video.movedim(1, 0)
    if len(frames) == 1:
        return {}
    apart = [(b.double() - a.double()).abs().mean().item() for a, b in pairwise(frames)]
    return {"temporal_flickering": 1 - sum(apart) / len(apart)}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"temporal_flickering": TemporalFlickering}
