"""Whether a video moves, as VBench has it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ._dynamics import SAMPLING, dynamics
from ._flow import Flow, OfFlow


@frozen
class DynamicDegree(OfFlow):
    """1 where a video moves much, else 0; and how much, by optical flow

    VBench's dynamic degree (https://arxiv.org/abs/2311.17982): of every round(fps / 8)th frame, the
    flow to the next; a pair moves where the 5 % of pixels that move most do by more than
    6 px · min(H, W) / 256 on the average (· 8 / fps below 8 fps), and N frames where round(N / 4)
    pairs do, at least one. Beside it `_magnitude`, the mean length of the flow, and `_top`, that of
    the 5 %, both in px per 1/8 s at a shorter side of 256.

    flow: "dis" (OpenCV, no weights) or "raft", VBench's own; values are named by it. model: the
    file raft-things.pth, its folder, or a hub id. batch: pairs of frames through RAFT at once.

    Counts a moving camera, and flicker, as motion. A single frame has no value.
    """

    better: ClassVar[str] = "higher"

    def identity(self) -> Mapping[str, Any]:
        return {"flow": self.flow_identity(), "frames": SAMPLING}

    def load(self, device: torch.device) -> Metric:
        return partial(measure, self.flow, self.load_flow(device))


def measure(name: str, flow: Flow, sample: Sample) -> Mapping[str, float]:
    found = dynamics(flow, sample.video, sample.fps)
    if found is None:
        return {}
    return {
        name: float(found.is_dynamic),
        f"{name}_magnitude": found.magnitude,
        f"{name}_top": found.top,
    }


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"dynamic_degree": DynamicDegree}
