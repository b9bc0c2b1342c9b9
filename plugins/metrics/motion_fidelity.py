"""Whether a video's points move as the motion's do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from attrs import field, frozen
from attrs.validators import ge, in_
from torch import Tensor

from jtcore import hookimpl
from jtcore.evaluation.features import of_references
from jtcore.types import Metric, Sample

from ._fidelity import fidelity, released
from ._flow import SIDE
from ._motions import motion_clips, motion_files, motion_problems
from ._tracks import OfTracks, Tracker, Tracks

STILL = 0.2


@frozen
class MotionFidelity(OfTracks):
    """How alike the tracks of a video and of the reference motion are, in [-1, 1]

    Yatim et al.'s motion fidelity (https://arxiv.org/abs/2311.17009): of a track the mean cosine of
    its steps with those of the track of the other video that fits best; the mean over the video's
    tracks, `_of_video`, and over the reference's, `_of_reference`, and the value is the mean of
    both. 1 for a video and itself, -1 where all moves the other way, 0 where nothing moves. A step
    no longer than `still` px (at a shorter side of 256) stands: it agrees with one that stands, and
    not with one that moves. Tracks that get no further than 2 px, or are seen in less than half of
    the steps, are left out. The longer video is read at as many times as the shorter one has
    frames; several clips count alike.

    tracker: "lucas_kanade" (OpenCV, no weights; a point is lost for good where the way back misses
    it by 1 px) or "cotracker", the papers' own; values are named by it. model: the file
    scaled_offline.pth, its folder, or a hub id. grid: points a side, of the first frame. batch:
    frames through CoTracker's encoder at once. motion: a clip, or a folder of them. compat: as
    "jointtuner" releases it, x100, without the true match of each track; named by it too.

    Blind to what moves, where and how far: only directions count, and one good match for each
    track. A single frame has no value, nor a motion in which nothing moves.
    """

    motion: str | None = None
    still: float = field(default=STILL, validator=ge(0))
    compat: Literal["jointtuner"] | None = field(default=None, validator=in_((None, "jointtuner")))
    better: ClassVar[str] = "higher"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.compat and self.still != STILL:
            raise ValueError("expected still or compat, got both")

    def problems(self) -> list[str]:
        return [*self.tracker_problems(), *motion_problems(self.motion)]

    def files(self) -> list[Path]:
        return [*self.tracker_files(), *motion_files(self.motion)]

    def identity(self) -> Mapping[str, Any]:
        return {"tracker": self.tracker_identity(), "frames": "all"}

    def load(self, device: torch.device) -> Metric:
        tracker = self.load_tracker(device)
        found = [f.numpy() for f in of_references(self, device, lambda: self._tracked(tracker))]
        references = [Tracks(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        return partial(self._measure, tracker, references)

    def _tracked(self, tracker: Tracker) -> list[Tensor]:
        """Of each clip its tracks' places (T, N, 2), and where they are seen (T, N)."""
        tracks = [tracks_of(tracker, clip) for clip, _ in motion_clips(self.motion)]
        return [torch.from_numpy(part) for each in tracks for part in (each.places, each.visible)]

    def _measure(
        self, tracker: Tracker, references: Sequence[Tracks], sample: Sample
    ) -> Mapping[str, float]:
        if sample.video.shape[1] == 1:
            return {}
        tracks = tracks_of(tracker, sample.video)
        if self.compat:
            scores = [released(tracks, each) for each in references]
            return _means({f"{self.tracker}_{self.compat}": scores})
        found = [each for each in (fidelity(tracks, r, self.still) for r in references) if each]
        return _means(
            {
                self.tracker: [each.both for each in found],
                f"{self.tracker}_of_video": [each.of_video for each in found],
                f"{self.tracker}_of_reference": [each.of_reference for each in found],
            }
        )


def tracks_of(tracker: Tracker, video: Tensor) -> Tracks:  # (3, F, H, W) in [0, 1]
    """In pixels at a shorter side of 256."""
    tracks = tracker(video)
    return Tracks(tracks.places * (SIDE / min(video.shape[2:])), tracks.visible)


def _means(values: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Of what has a value for some clip."""
    known = {name: [v for v in each if v is not None] for name, each in values.items()}
    return {name: fmean(each) for name, each in known.items() if each}


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"motion_fidelity": MotionFidelity}
