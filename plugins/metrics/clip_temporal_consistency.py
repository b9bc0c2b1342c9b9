"""How alike consecutive frames are to CLIP: the papers' temporal consistency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from . import _clip
from ._checkpoints import Checkpoint
from ._consistency import consecutive
from ._frames import OfFramesOrReleased
from ._preparations import Preparation, of_checkpoint, openai


@frozen
class ClipTemporalConsistency(OfFramesOrReleased):
    """T-Cons: mean cosine of consecutive frames, in [-1, 1]

    By CLIP ViT-B/32, pictures prepared as the checkpoint says. `model` is a folder or a hub id;
    `batch` frames go through it at once; `frames` is "all", or a rate in 1/s: at a lower one frames
    are farther apart, and less alike. A still video has 1, so read it beside a metric of motion;
    one frame has no value.

    `compat = "jointtuner"` is the `temp-con` of that paper's released code: times the network's own
    scale, which is 100, and of every int(fps / 8)th frame.
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
        scale = _clip.scale(network) if self.compat else 1.0

        def measure(sample: Sample) -> Mapping[str, float]:
            frames = self.shown(sample)
            if len(frames) == 1:
                return {}
            return {"clip_temporal_consistency": scale * consecutive(looking.embed(frames))}

        return measure

    @property
    def _checkpoint(self) -> Checkpoint:
        return _clip.with_pictures(self.model)

    def _preparation(self) -> Preparation:
        return (
            openai(_clip.side(self._checkpoint)) if self.compat else of_checkpoint(self._checkpoint)
        )


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"clip_temporal_consistency": ClipTemporalConsistency}
