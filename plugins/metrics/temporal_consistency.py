"""How alike consecutive frames are."""

from collections.abc import Mapping

import torch
from attrs import frozen
from torch.nn import functional

from jtcore import hookimpl
from jtcore.types import Metric, Sample


@frozen
class TemporalConsistency:
    """Mean cosine similarity of consecutive frames, by their pixels

    Needs no weights, and is not comparable to the CLIP-based "T-Cons" of the papers. 1 is a still
    video; flicker and motion both lower it, so read it beside a metric of motion. A single frame
    has no value.
    """

    def load(self, device: torch.device) -> Metric:
        return measure


def measure(sample: Sample) -> Mapping[str, float]:
    frames = sample.video.movedim(1, 0).flatten(1).double()  # (F, 3 H W)
    frames = functional.pad(frames, (0, 1), value=1.0)  # without it black frames have no angle
    if len(frames) == 1:
        return {}
    alike = functional.cosine_similarity(frames[:-1], frames[1:])
    return {"temporal_consistency": alike.mean().item()}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"temporal_consistency": TemporalConsistency}
