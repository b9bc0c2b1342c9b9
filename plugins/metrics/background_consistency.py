"""Whether the scene stays what it is, by VBench's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from . import _clip
from ._checkpoints import Checkpoint
from ._consistency import vbench
from ._frames import OfFrames
from ._preparations import Preparation, vbench_clip


@frozen
class BackgroundConsistency(OfFrames):
    """VBench's background consistency: subject consistency's formula by CLIP ViT-B/32, in [0, 1]

    Mean over all frames but the first of half the sum of the cosines to the one before and to the
    first, each not below 0. Nothing separates the background: the whole frame is looked at. Frames
    are scaled to a shorter side of 224 px, bicubic, without antialiasing, and their centre is cut
    out, as VBench does. `model` is a folder or a hub id; `batch` frames go through it at once;
    `frames` is "all", or a rate in 1/s. A still video has 1; one frame has no value.
    """

    better: ClassVar[str] = "higher"

    model: str = _clip.VIT_B_32

    def problems(self) -> list[str]:
        return self._checkpoint.problems()

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        network = self._checkpoint.load("CLIPModel", device)
        looking = _clip.look(network, self._preparation(), self.batch)

        def measure(sample: Sample) -> Mapping[str, float]:
            frames = self.shown(sample)
            if len(frames) == 1:
                return {}
            return {"background_consistency": vbench(looking.embed(frames))}

        return measure

    @property
    def _checkpoint(self) -> Checkpoint:
        return _clip.bare(self.model)

    def _preparation(self) -> Preparation:
        return vbench_clip(_clip.side(self._checkpoint))


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"background_consistency": BackgroundConsistency}
