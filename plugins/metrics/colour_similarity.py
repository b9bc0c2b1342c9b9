"""Whether frames have the colours of pictures of the subject: a similarity without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor
from torch.nn.functional import cosine_similarity

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from ._frames import OfFrames
from ._references import first_frames, found_in, reference_problems


@frozen
class ColourSimilarity(OfFrames):
    """Mean over frames and reference pictures of the cosine of their colour histograms, in [0, 1]

    Each pixel is shared among the 8 nearest of `levels`^3 colours, evenly spaced in RGB, by
    trilinear weights. `subject` is a folder of pictures or clips (whose first frames are taken), or
    one file; `jt-eval --subject` fills it. `frames` is "all", or a rate in 1/s; `batch` frames are
    looked at at once.

    Needs no weights, and knows no objects: what fills most of a frame, which mostly is the
    background, decides it. A subject before the pictures' own background is more alike than one
    where it was asked for, and shuffled pixels are as good as any. Read it as a difference between
    models on the same prompts, never as an identity.
    """

    better: ClassVar[str] = "higher"

    subject: str | None = None
    levels: int = field(default=4, validator=[ge(2), le(16)])

    def problems(self) -> list[str]:
        return reference_problems("subject", self.subject)

    def files(self) -> list[Path]:
        return [] if self.subject is None else found_in(self.subject)

    def identity(self) -> Mapping[str, Any]:
        return {"model": "none", "frames": self.sampling(), "references": "all, first frames"}

    def load(self, device: torch.device) -> Metric:
        references = torch.stack([self._histogram(each) for each in first_frames(self.subject)])

        def measure(sample: Sample) -> Mapping[str, float]:
            found = torch.stack([self._histogram(frame) for frame in self.shown(sample)])
            alike = cosine_similarity(found[:, None], references[None], -1)  # (F, R)
            return {"colour_similarity": alike.mean().item()}

        return measure

    def _histogram(self, picture: Tensor) -> Tensor:  # uint8 (3, H, W) -> (levels^3,)
        at = picture.flatten(1).double() / 255 * (self.levels - 1)  # (3, pixels)
        centres = torch.arange(self.levels)[:, None]
        red, green, blue = (1 - (at[:, None] - centres).abs()).relu()  # (levels, pixels)
        return torch.einsum("ip,jp,kp->ijk", red, green, blue).flatten() / at.shape[1]


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"colour_similarity": ColourSimilarity}
