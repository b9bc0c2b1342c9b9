"""What metrics make of their references: made once, for all evaluations by the same metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jtcore.cache import Cache, cache_folder
from jtcore.evaluation.identity import code_digest, identify
from jtcore.stream import shaping
from jtcore.structure import Component

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from jtcore.types import MetricSpec


def of_references(
    spec: MetricSpec, device: torch.device, make: Callable[[], Sequence[Tensor]]
) -> list[Tensor]:
    """What `make` answers, on the CPU; out of the cache where the metric is the same, to its last
    reference, and so is its plugin's source. Raises JtError."""
    metric = Component(type(spec).__qualname__, spec)
    key = shaping(device) | {
        "what": "features of references",
        "metric": identify(metric).hash,
        "plugin": code_digest(metric),
    }
    found = Cache(cache_folder()).get_or_make(
        key, lambda: {f"{number}": feature for number, feature in enumerate(make())}
    )
    return [found[f"{number}"] for number in range(len(found))]
