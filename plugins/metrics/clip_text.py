"""Whether frames show what the prompt says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from . import _clip
from ._frames import OfFramesOrReleased
from ._preparations import Preparation, of_checkpoint, openai


@frozen
class ClipText(OfFramesOrReleased):
    """CLIP-T: mean over frames of the cosine of prompt and frame, in [-1, 1]

    By CLIP ViT-B/32, pictures prepared as the checkpoint says. `tokens_cut` is how many tokens of
    the prompt the network does not read, where there are any: the end of a prompt of more than 77
    has no say. `model` is a folder or a hub id; `batch` frames go through it at once; `frames` is
    "all", or a rate in 1/s.

    `compat = "jointtuner"` is that paper's released number: times the network's own scale, which is
    100, and of every int(fps / 8)th frame.
    """

    better: ClassVar[str] = "higher"

    model: str = _clip.VIT_B_32

    def problems(self) -> list[str]:
        return _clip.with_words(self.model).problems()

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": _clip.with_words(self.model).identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        checkpoint = _clip.with_words(self.model)
        network = checkpoint.load("CLIPModel", device)
        looking = _clip.look(network, self._preparation(), self.batch)
        reading = _clip.read(network, checkpoint)
        scale = _clip.scale(network) if self.compat else 1.0

        def measure(sample: Sample) -> Mapping[str, float]:
            alike = looking.embed(self.shown(sample)) @ reading.embed(sample.prompt)  # (F,)
            cut = reading.cut_off(sample.prompt)
            told = {"tokens_cut": float(cut)} if cut else {}
            return {"clip_text": scale * alike.mean().item(), **told}

        return measure

    def _preparation(self) -> Preparation:
        checkpoint = _clip.with_words(self.model)
        return openai(_clip.side(checkpoint)) if self.compat else of_checkpoint(checkpoint)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"clip_text": ClipText}
