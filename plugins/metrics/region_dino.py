"""Whether what is in a box looks like the subject, to DINO."""

from __future__ import annotations

from typing import ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric

from . import _dino
from ._checkpoints import Checkpoint
from ._preparations import of_checkpoint
from ._regions import OfRegions


@frozen
class RegionDino(OfRegions):
    """R-DINO: mean over boxes in frames and reference pictures of DINO's cosine, in [-1, 1]

    MotionBooth's measure of a subject that a box leads (https://arxiv.org/abs/2406.17758): DINO-I
    of what is in the box, by the class token of ViT-S/16. `boxes` is a JSON file, a list of
    `{"prompt", "seed", "boxes"}`: of each frame [top, left, bottom, right] in parts of the frame,
    or null where the subject is not seen; without `prompt` or `seed` an entry is of every video. Or
    `path`, the keyframes of a `box_attention` control. `subject` is a folder of pictures, or one
    picture, not cut; `model` is a folder or a hub id, of DINOv2 as well; `batch` regions go through
    it at once; `frames` is "all", or a rate in 1/s. A video without boxes has no value.
    """

    better: ClassVar[str] = "higher"

    model: str = "facebook/dino-vits16"

    def load(self, device: torch.device) -> Metric:
        looking = _dino.load(self._checkpoint, of_checkpoint(self._checkpoint), self.batch, device)
        return self.likeness("region_dino", looking, device)

    @property
    def _checkpoint(self) -> Checkpoint:
        return _dino.with_pictures(self.model)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"region_dino": RegionDino}
