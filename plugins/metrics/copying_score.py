"""Whether a video repeats what the model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from . import _dino
from ._checkpoints import Checkpoint
from ._clip import Looking
from ._frames import OfFrames
from ._preparations import of_checkpoint
from ._references import all_frames, first_frames, found_in, reference_problems

READ = {"subject": first_frames, "motion": all_frames}
LOOKED_AT = {"subject": "pictures, first frames", "motion": "all frames"}


@frozen
class CopyingScore(OfFrames):
    """1 where a video copies its references, else 0: the mean over videos is their share

    After the copying score of customised motion (https://arxiv.org/abs/2312.04966), with DINO
    ViT-S/16 in place of a copy detector: a video's similarity is the mean over its frames of the
    greatest cosine to any frame of the references, and it copies where that is above `threshold`,
    which is ours. Beside it `frames_copied`, the share of frames above it; `subject_similarity` and
    `motion_similarity`, the same mean for the pictures and for the clips alone.

    `subject` is a folder of pictures, `motion` one of clips; one of them will do. `model` is a
    folder or a hub id, of DINOv2 as well; `batch` frames go through it at once; `frames` is "all",
    or a rate in 1/s, of the video. DINO knows things rather than pixels: a faithful subject before
    a like background is near a copy too, so read it beside DINO-I.
    """

    better: ClassVar[str] = "lower"

    model: str = "facebook/dino-vits16"
    subject: str | None = None
    motion: str | None = None
    threshold: float = field(default=0.9, validator=[ge(-1), le(1)])

    def problems(self) -> list[str]:
        found = self._checkpoint.problems()
        if not self._given:
            return [*found, *reference_problems("motion", None)]
        return found + [p for name in self._given for p in reference_problems(*name)]

    def files(self) -> list[Path]:
        return [path for _, place in self._given for path in found_in(place)]

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": of_checkpoint(self._checkpoint).identity(),
            "frames": self.sampling(),
            "references": {name: LOOKED_AT[name] for name, _ in self._given},
        }

    def load(self, device: torch.device) -> Metric:
        looking = _dino.load(self._checkpoint, of_checkpoint(self._checkpoint), self.batch, device)
        given = dict(self._given)
        embedded = of_references(
            self,
            device,
            lambda: [embed_all(looking, READ[n](place), self.batch) for n, place in given.items()],
        )
        references = dict(zip(given, embedded, strict=True))

        def measure(sample: Sample) -> Mapping[str, float]:
            frames = looking.embed(self.shown(sample))  # (F, E)
            nearest = {name: (frames @ each.T).amax(1) for name, each in references.items()}
            return self._judge(nearest)

        return measure

    def _judge(self, nearest: Mapping[str, Tensor]) -> Mapping[str, float]:  # (F,) each
        every = torch.stack(list(nearest.values())).amax(0)
        return {
            "copying_score": float(every.mean() > self.threshold),
            "frames_copied": (every > self.threshold).double().mean().item(),
            **{f"{name}_similarity": each.mean().item() for name, each in nearest.items()},
        }

    @property
    def _given(self) -> list[tuple[str, str]]:
        """The references that there are, each with its option."""
        both = {"subject": self.subject, "motion": self.motion}
        return [(name, place) for name, place in both.items() if place is not None]

    @property
    def _checkpoint(self) -> Checkpoint:
        return _dino.with_pictures(self.model)


def embed_all(looking: Looking, pictures: Iterable[Tensor], batch: int) -> Tensor:  # (N, E)
    """Of more pictures than memory may hold."""
    rest, found = iter(pictures), []
    while some := list(islice(rest, batch)):
        found.append(looking.embed(some))
    return torch.cat(found)


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"copying_score": CopyingScore}
