"""How alike the tracks of two videos are. T frames, N and M points; lengths are in pixels at a
shorter side of 256."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ._tracks import Tracks

EXTENT = 2.0  # pixels: a track that keeps nearer to its first place does not count


@frozen
class Fidelity:
    """Mean of the best agreement with a track of the other video, in [-1, 1]"""

    of_video: float  # over the video's tracks
    of_reference: float  # over the reference's

    @property
    def both(self) -> float:
        return (self.of_video + self.of_reference) / 2


@frozen(eq=False)
class Steps:
    """Of the tracks that count: what each step says, and which are seen"""

    said: NDArray  # float (N, (T - 1) * 3): direction x, y, and 1 where it stands; 0 unseen
    seen: NDArray  # float (N, T - 1): 1 or 0


def fidelity(video: Tracks, reference: Tracks, still: float) -> Fidelity | None:
    """Tracks by direction: the mean over steps that both have of the cosine where both move, 1
    where both stand and 0 where one does. None where nothing moves in the reference; 0 where
    nothing moves in the video alone.

    The tracks that count are seen in half of the steps or more, and get somewhere: so a still
    background agrees with nothing. The longer video is read at as many times as the shorter one
    has frames.
    """
    frames = min(len(video.places), len(reference.places))
    ours, theirs = (steps(resampled(each, frames), still) for each in (video, reference))
    if not len(theirs.seen):
        return None
    if not len(ours.seen):
        return Fidelity(0.0, 0.0)
    shared = ours.seen @ theirs.seen.T  # (N, M)
    agreement = np.where(shared > 0, ours.said @ theirs.said.T / np.maximum(shared, 1), -np.inf)
    best = [agreement.max(axis) for axis in (1, 0)]
    means = [np.where(np.isfinite(each), each, 0).mean() for each in best]
    return Fidelity(*map(float, means))


def steps(tracks: Tracks, still: float) -> Steps:
    """A step that is no longer than `still` stands."""
    moves = np.diff(tracks.places.astype(np.float64), axis=0)
    seen = tracks.visible[1:] & tracks.visible[:-1]
    lengths = np.linalg.norm(moves, axis=-1, keepdims=True)
    stands = lengths <= still
    directions = np.divide(moves, lengths, out=np.zeros_like(moves), where=~stands)
    said = np.concatenate([directions, stands], -1) * seen[..., None]
    counts = (2 * seen.sum(0) >= len(seen)) & (_extent(tracks) > EXTENT)
    said = said[:, counts].swapaxes(0, 1)
    return Steps(said.reshape(len(said), 3 * len(seen)), seen[:, counts].T.astype(float))


def resampled(tracks: Tracks, frames: int) -> Tracks:
    """Read at evenly spread times, linearly in between; seen where both neighbours are."""
    count = len(tracks.places)
    if count == frames:
        return tracks
    times = np.linspace(0, count - 1, frames)
    before = np.floor(times).astype(int)
    after = np.minimum(before + (times > before), count - 1)
    share = (times - before)[:, None, None]
    places = (1 - share) * tracks.places[before] + share * tracks.places[after]
    return Tracks(places, tracks.visible[before] & tracks.visible[after])


def _extent(tracks: Tracks) -> NDArray:  # (N,)
    """How far from its first place each is seen."""
    away = np.linalg.norm(tracks.places - tracks.places[0], axis=-1)
    return np.where(tracks.visible, away, 0).max(0)


def released(video: Tracks, reference: Tracks) -> float | None:
    """The number of JointTuner's released code, in [-100, 100] by its design; None where it stops,
    which it does for a video longer than the reference.

    Of each track of the video the best agreement with a track of the reference *other than the one
    of the same number*, for an identity matrix is subtracted; a step without length is not a
    number, and neither is any agreement with it: one such step in the reference makes the whole
    score 0. A shorter video is filled up with steps that agree with nothing. Visibility is not
    looked at.
    """
    ours, theirs = (_directions(each.places) for each in (video, reference))
    if len(ours) > len(theirs):
        return None
    ours = np.pad(ours, [(0, len(theirs) - len(ours)), (0, 0), (0, 0)])
    agreement = np.einsum("tnc,tmc->nm", ours, theirs) / len(theirs)
    best = (agreement - np.eye(len(agreement))).max(1)
    return float(100 * np.nan_to_num(best, nan=0.0).mean())


def _directions(places: NDArray) -> NDArray:  # (T, N, 2) -> (T - 1, N, 2) of length 1, or nan
    moves = np.diff(places.astype(np.float64), axis=0)
    with np.errstate(invalid="ignore"):
        return moves / np.linalg.norm(moves, axis=-1, keepdims=True)
