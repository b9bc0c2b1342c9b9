"""Which frames of a video a metric looks at."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import ge

if TYPE_CHECKING:
    from torch import Tensor

    from jtcore.types import Sample

RELEASED_RATE = 8  # frames per second that JointTuner's metrics ask for
Compat = Literal["jointtuner"] | None


def _all_or_rate(instance: object, attribute: Attribute, frames: Any) -> None:
    is_rate = type(frames) in (int, float) and frames > 0
    if frames != "all" and not is_rate:
        raise ValueError(f'expected "all" or a number of frames per second, got {frames!r}')


@frozen
class OfFrames:
    """Options of a metric that looks at frames through a network"""

    batch: int = field(default=16, validator=ge(1))  # frames through the network at once
    frames: Any = field(default="all", validator=_all_or_rate)

    def shown(self, sample: Sample) -> list[Tensor]:  # uint8 (3, H, W) each
        """The frames that are looked at."""
        return [picture for _, picture in self.shown_at(sample)]

    def shown_at(self, sample: Sample) -> list[tuple[int, Tensor]]:  # each with its index
        chosen = self._chosen(sample)
        return list(zip(chosen, pictures(sample.video, chosen), strict=True))

    def _chosen(self, sample: Sample) -> list[int]:
        return at_rate(self.frames, sample)

    def sampling(self) -> str:
        """In words, for the metric's identity."""
        return "all" if self.frames == "all" else f"{float(self.frames)} per second"


@frozen
class OfFramesOrReleased(OfFrames):
    """The same of a metric of JointTuner's, which can be measured as its released code does"""

    compat: Compat = None

    def __attrs_post_init__(self) -> None:
        if self.compat and self.frames != "all":
            raise ValueError("expected frames or compat, got both: compat says which frames")

    def sampling(self) -> str:
        return "every int(fps / 8)th" if self.compat else super().sampling()

    def _chosen(self, sample: Sample) -> list[int]:
        return released(sample) if self.compat else super()._chosen(sample)


def at_rate(rate: Any, sample: Sample) -> list[int]:
    """The frames that a player shows at each 1 / rate s, each once; or all."""
    count = sample.video.shape[1]
    if rate == "all" or rate >= sample.fps:
        return list(range(count))
    step = sample.fps / rate
    times = range(floor((count - 1e-3) / step) + 1)
    return [min(floor(k * step + 1e-3), count - 1) for k in times]


def released(sample: Sample) -> list[int]:
    """Every int(fps / 8)th, whatever is left of the division: of 15 per second all are taken."""
    interval = max(1, int(round(sample.fps, 3) / RELEASED_RATE))
    return list(range(0, sample.video.shape[1], interval))


def pictures(video: Tensor, chosen: list[int]) -> list[Tensor]:
    """Frames of (3, F, H, W) in [0, 1] as the pictures of 8 bits that they were: (3, H, W) each."""
    shown = (video[:, chosen] * 255).round().clamp(0, 255).byte()
    return list(shown.movedim(1, 0))
