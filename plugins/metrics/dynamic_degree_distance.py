"""Whether a video moves as much as the motion does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from ._dynamics import SAMPLING, dynamics
from ._flow import Flow, OfFlow
from ._motions import motion_clips, motion_files, motion_problems


@frozen
class DynamicDegreeDistance(OfFlow):
    """How far a video's amount of motion is from the reference motion's

    |magnitude - the clips' mean magnitude|, where the magnitude is that of `dynamic_degree`: the
    mean length of the flow, in px per 1/8 s at a shorter side of 256. DualReal
    (https://arxiv.org/abs/2505.02192) counts how near a video comes to the motion that it was to
    learn, and not how much it moves. Beside it `_top`, the same of the 5 % that move most.

    flow, model, batch: as for `dynamic_degree`; values are named by the flow. motion: a clip, or a
    folder of them.

    Blind to directions and to what moves: any motion of the same amount is 0. A single frame has no
    value.
    """

    motion: str | None = None
    better: ClassVar[str] = "lower"

    def problems(self) -> list[str]:
        return [*super().problems(), *motion_problems(self.motion)]

    def files(self) -> list[Path]:
        return [*super().files(), *motion_files(self.motion)]

    def identity(self) -> Mapping[str, Any]:
        return {"flow": self.flow_identity(), "frames": SAMPLING}

    def load(self, device: torch.device) -> Metric:
        flow = self.load_flow(device)
        (known,) = of_references(self, device, lambda: [self._dynamics(flow)])
        return partial(measure, self.flow, flow, known.tolist())

    def _dynamics(self, flow: Flow) -> Tensor:  # (R, 2), float64: magnitude and top of each clip
        found = [dynamics(flow, *clip) for clip in motion_clips(self.motion)]
        known = [(each.magnitude, each.top) for each in found if each]
        return torch.tensor(known, dtype=torch.float64).view(-1, 2)


def measure(
    name: str, flow: Flow, references: list[tuple[float, float]], sample: Sample
) -> Mapping[str, float]:
    found = dynamics(flow, sample.video, sample.fps)
    if found is None or not references:
        return {}
    magnitude, top = map(fmean, zip(*references, strict=True))
    return {name: abs(found.magnitude - magnitude), f"{name}_top": abs(found.top - top)}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"dynamic_degree_distance": DynamicDegreeDistance}
