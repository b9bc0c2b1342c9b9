"""Whether frames look like pictures of the subject, to DINO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from . import _dino
from ._checkpoints import Checkpoint
from ._frames import OfFrames
from ._preparations import Preparation, dreamvideo, of_checkpoint
from ._references import first_frames, found_in, reference_problems


@frozen
class DinoImage(OfFrames):
    """DINO-I: mean over frames and reference pictures of the cosine of the two, in [-1, 1]

    By the class token of DINO ViT-S/16; `model` is a folder or a hub id, of DINOv2 as well.
    `preparation` is what the "checkpoint" says (of ViT-S/16: squeezed to 224 x 224 px, bilinear, as
    CustomCrafter measures), or "dreamvideo": 256 px, of which the centre's 224 are cut out,
    bicubic. `subject` is a folder of pictures, or one picture; `jt-eval --subject` fills it.
    `batch` frames go through the network at once; `frames` is "all", or a rate in 1/s.
    """

    better: ClassVar[str] = "higher"

    model: str = "facebook/dino-vits16"
    subject: str | None = None
    preparation: Literal["checkpoint", "dreamvideo"] = "checkpoint"

    def problems(self) -> list[str]:
        found = self._checkpoint.problems()
        return found + reference_problems("subject", self.subject)

    def files(self) -> list[Path]:
        return [] if self.subject is None else found_in(self.subject)

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
            "references": "all",
        }

    def load(self, device: torch.device) -> Metric:
        looking = _dino.load(self._checkpoint, self._preparation(), self.batch, device)
        (references,) = of_references(
            self, device, lambda: [looking.embed(first_frames(self.subject))]
        )  # (R, E)

        def measure(sample: Sample) -> Mapping[str, float]:
            alike = looking.embed(self.shown(sample)) @ references.T  # (F, R)
            return {"dino_image": alike.mean().item()}

        return measure

    @property
    def _checkpoint(self) -> Checkpoint:
        return _dino.with_pictures(self.model)

    def _preparation(self) -> Preparation:
        if self.preparation == "dreamvideo":
            return dreamvideo(self._checkpoint.config().get("image_size", 224))
        return of_checkpoint(self._checkpoint)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"dino_image": DinoImage}
