"""Whether a video flows as a camera or a reference does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from ._flow import SIDE, Flow, OfFlow
from ._motions import motion_clips, motion_files, motion_problems

CELLS = 32  # a side, over which flow is averaged before it is compared


@frozen
class FlowError(OfFlow):
    """How far a video's optical flow is from a camera's, or from the reference motion's

    The mean length of the difference, in px a frame at a shorter side of 256, over 32x32 cells of
    the frame and all pairs of consecutive frames: MotionBooth's flow error
    (https://arxiv.org/abs/2406.17758), which it takes from a camera that is told to pan. A
    reference of another length is stretched to the video's, and one of another size to its frame;
    of several clips the errors' mean is taken.

    camera: [right, down], how far all that is seen moves over the whole clip, as shares of the
    width and the height (a camera that pans right moves it left: negative). motion: a clip or a
    folder of them, which is not read where there is a camera. flow, model, batch: as for
    `dynamic_degree`; values are named by the flow.

    Flow of plain areas is guessed from their surroundings. A video that does not move has the
    reference's own mean length of flow as its error, so compare with that. A single frame has no
    value.
    """

    camera: tuple[float, float] | None = None
    motion: str | None = None
    better: ClassVar[str] = "lower"

    def problems(self) -> list[str]:
        lacking = [] if self.camera else motion_problems(self.motion)
        return [*super().problems(), *lacking]

    def files(self) -> list[Path]:
        clips = [] if self.camera else motion_files(self.motion)
        return [*super().files(), *clips]

    def identity(self) -> Mapping[str, Any]:
        return {"flow": self.flow_identity(), "frames": "all", "cells": CELLS}

    def load(self, device: torch.device) -> Metric:
        flow = self.load_flow(device)
        if self.camera:
            wanted = [torch.tensor(self.camera).view(1, 2, 1, 1).expand(-1, -1, CELLS, CELLS)]
        else:
            wanted = of_references(
                self,
                device,
                lambda: [velocities(flow, clip) for clip, _ in motion_clips(self.motion)],
            )
        return partial(measure, self.flow, flow, wanted)


def measure(name: str, flow: Flow, wanted: list[Tensor], sample: Sample) -> Mapping[str, float]:
    if sample.video.shape[1] == 1:
        return {}
    found = velocities(flow, sample.video)
    height, width = sample.video.shape[2:]
    pixels = found.new_tensor([width, height]).view(2, 1, 1) * SIDE / min(height, width)
    apart = [(found - stretched(each, len(found))) * pixels / len(found) for each in wanted]
    return {name: fmean(each.norm(dim=1).mean().item() for each in apart)}


def velocities(flow: Flow, video: Tensor) -> Tensor:
    """(3, F, H, W) -> (F - 1, 2, CELLS, CELLS), right and down: how far each cell would come over
    the whole clip, as shares of the width and the height."""
    height, width = video.shape[2:]
    means = torch.stack([adaptive_avg_pool2d(each, CELLS) for each in flow(video)]).double()
    return means / means.new_tensor([width, height]).view(2, 1, 1) * len(means)


def stretched(velocities: Tensor, pairs: int) -> Tensor:  # (P, 2, h, w) -> (pairs, 2, h, w)
    """Read at other times of the clip, linearly in between."""
    if len(velocities) == pairs:
        return velocities
    series = velocities.double().flatten(1).T[None]  # (1, 2 h w, P)
    read = interpolate(series, pairs, mode="linear")
    return read[0].T.reshape(pairs, *velocities.shape[1:])


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"flow_error": FlowError}
