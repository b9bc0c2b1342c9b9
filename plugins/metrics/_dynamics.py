"""How much moves in a video, by its flow, as VBench samples and judges it."""

from __future__ import annotations

from statistics import fmean

from attrs import frozen
from torch import Tensor

from ._flow import SIDE, Flow

RATE = 8  # frames per second that are looked at
THRESHOLD = 6.0  # pixels: above it a pair of frames moves
TOP = 0.05  # the share of a frame's pixels that move most
SAMPLING = "every round(fps / 8)th"


@frozen
class Dynamics:
    """Lengths of flow in pixels per 1/8 s at a shorter side of 256 pixels"""

    tops: tuple[float, ...]  # of each pair of frames: the mean over the 5 % that move most
    means: tuple[float, ...]  # of each pair: over all pixels

    @property
    def top(self) -> float:
        return fmean(self.tops)

    @property
    def magnitude(self) -> float:
        return fmean(self.means)

    @property
    def is_dynamic(self) -> bool:
        """Whether a quarter of the frames moves. Of 2 frames VBench's rounding asks for none."""
        asked = max(round(4 * (len(self.tops) + 1) / 16), 1)
        return sum(top > THRESHOLD for top in self.tops) >= asked


def dynamics(flow: Flow, video: Tensor, fps: float) -> Dynamics | None:
    """Of (3, F, H, W) in [0, 1], whose frames are taken about 8 times a second; None where that
    leaves one frame."""
    shown = video[:, :: max(1, round(fps / RATE))]
    if shown.shape[1] == 1:
        return None
    scale = SIDE / min(video.shape[2:]) / max(1.0, RATE / fps)
    tops, means = [], []
    for each in flow(shown):
        lengths = scale * each.double().norm(dim=0).flatten()
        most = lengths.topk(max(int(TOP * len(lengths)), 1)).values
        tops.append(most.mean().item())
        means.append(lengths.mean().item())
    return Dynamics(tuple(tops), tuple(means))
