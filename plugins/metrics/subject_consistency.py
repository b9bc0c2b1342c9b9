"""Whether what is seen stays what it is, by VBench's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from . import _dino
from ._checkpoints import Checkpoint
from ._consistency import vbench
from ._frames import OfFrames
from ._preparations import Preparation, vbench_dino


@frozen
class SubjectConsistency(OfFrames):
    """VBench's subject consistency: how alike frames are to the one before and the first, in [0, 1]

    Mean over all frames but the first of half the sum of the two cosines, each not below 0, by the
    class token of DINO ViT-B/16. Frames are scaled to a shorter side of 224 px, bilinear, without
    antialiasing, and not cut, as VBench does. `model` is a folder or a hub id; `batch` frames go
    through it at once; `frames` is "all", or a rate in 1/s. A still video has 1; one frame has no
    value.
    """

    better: ClassVar[str] = "higher"

    model: str = "facebook/dino-vitb16"

    def problems(self) -> list[str]:
        return self._checkpoint.problems()

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        looking = _dino.load(self._checkpoint, self._preparation(), self.batch, device)

        def measure(sample: Sample) -> Mapping[str, float]:
            frames = self.shown(sample)
            if len(frames) == 1:
                return {}
            return {"subject_consistency": vbench(looking.embed(frames))}

        return measure

    @property
    def _checkpoint(self) -> Checkpoint:
        return _dino.bare(self.model)

    def _preparation(self) -> Preparation:
        return vbench_dino(self._checkpoint.config().get("image_size", 224))


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"subject_consistency": SubjectConsistency}
