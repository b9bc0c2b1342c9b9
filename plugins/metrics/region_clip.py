"""Whether what is in a box looks like the subject, to CLIP."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric

from . import _clip
from ._checkpoints import Checkpoint
from ._preparations import of_checkpoint
from ._regions import OfRegions


@frozen
class RegionClip(OfRegions):
    """R-CLIP: mean over boxes in frames and reference pictures of CLIP's cosine, in [-1, 1]

    MotionBooth's measure of a subject that a box leads (https://arxiv.org/abs/2406.17758): CLIP-I
    of what is in the box, by ViT-B/32. `boxes` is a JSON file, a list of `{"prompt", "seed",
    "boxes"}`: of each frame [top, left, bottom, right] in parts of the frame, or null where the
    subject is not seen; without `prompt` or `seed` an entry is of every video. Or `path`, the
    keyframes of a `box_attention` control. `subject` is a folder of pictures, or one picture, not
    cut; `model` is a folder or a hub id; `batch` regions go through it at once; `frames` is "all",
    or a rate in 1/s. A video without boxes has no value.
    """

    better: ClassVar[str] = "higher"

    model: str = _clip.VIT_B_32

    def load(self, device: torch.device) -> Metric:
        network = self._checkpoint.load("CLIPModel", device)
        looking = _clip.look(network, of_checkpoint(self._checkpoint), self.batch)
        return self.likeness("region_clip", looking, device)

    @property
    def _checkpoint(self) -> Checkpoint:
        return _clip.with_pictures(self.model)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"region_clip": RegionClip}
