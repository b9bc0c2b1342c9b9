"""Whether frames look like pictures of the subject, to CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from . import _clip
from ._frames import OfFramesOrReleased
from ._preparations import Preparation, of_checkpoint, openai
from ._references import first_frames, found_in, reference_problems


@frozen
class ClipImage(OfFramesOrReleased):
    """CLIP-I: mean over frames and reference pictures of the cosine of the two, in [-1, 1]

    By CLIP ViT-B/32, pictures prepared as the checkpoint says. `subject` is a folder of pictures,
    or one picture, and of a clip its first frame; `jt-eval --subject` fills it. `model` is a folder
    or a hub id; `batch` frames go through it at once; `frames` is "all", or a rate in 1/s. A copied
    background scores as well as the subject does.

    `compat = "jointtuner"` is that paper's released number: only the first picture by name, times
    the network's own scale, which is 100, and of every int(fps / 8)th frame.
    """

    better: ClassVar[str] = "higher"

    model: str = _clip.VIT_B_32
    subject: str | None = None

    def problems(self) -> list[str]:
        found = _clip.with_pictures(self.model).problems()
        return found + reference_problems("subject", self.subject)

    def files(self) -> list[Path]:
        return [] if self.subject is None else found_in(self.subject)[: 1 if self.compat else None]

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": _clip.with_pictures(self.model).identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
            "references": "the first" if self.compat else "all",
        }

    def load(self, device: torch.device) -> Metric:
        checkpoint = _clip.with_pictures(self.model)
        network = checkpoint.load("CLIPModel", device)
        looking = _clip.look(network, self._preparation(), self.batch)
        scale = _clip.scale(network) if self.compat else 1.0
        (references,) = of_references(self, device, lambda: [self._embed(looking)])  # (R, E)

        def measure(sample: Sample) -> Mapping[str, float]:
            alike = looking.embed(self.shown(sample)) @ references.T  # (F, R)
            return {"clip_image": scale * alike.mean().item()}

        return measure

    def _embed(self, looking: _clip.Looking) -> Tensor:  # (R, E)
        return looking.embed(first_frames(self.subject)[: 1 if self.compat else None])

    def _preparation(self) -> Preparation:
        checkpoint = _clip.with_pictures(self.model)
        return openai(_clip.side(checkpoint)) if self.compat else of_checkpoint(checkpoint)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"clip_image": ClipImage}
