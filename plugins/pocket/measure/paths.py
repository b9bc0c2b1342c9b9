"""Which motion of the world a track is, and how far it is from it."""

from __future__ import annotations

import numpy as np

from ..motions import HELD_OUT, PHRASES, path

MOTIONS = (*PHRASES, *HELD_OUT)
APART = 1.0  # px, how far the paths of two motions are from each other at the least
MOTION = 0.5  # score above which no other motion is nearer
ERROR = 1.0  # px, mean distance from the true path


def path_error(track: np.ndarray, motion: str) -> float:  # (F, 2) px -> px
    """Mean distance from the exact path, at the place where it fits best; nan without an object.

    Only the place is free: direction, extent, phase and tempo count.
    """
    return (
        float(np.linalg.norm(_deviation(track, motion), axis=1).mean()) if seen(track) else np.nan
    )


def motion_score(track: np.ndarray, motion: str) -> float:
    """1 on the path of `motion`, 0 where the error is that of the nearest other motion.

    Above one half no other motion is nearer, by the triangle inequality. An object that stands
    scores 0, for "stays" is among the others. Frames without an object count as the latter.
    """
    return _score(track, path_error(track, motion), separation(motion, len(track)))


def is_on_path(track: np.ndarray, motion: str) -> bool:  # (F, 2) px
    """Whether there is an object in every frame, and it moves as `motion` does."""
    near = motion_score(track, motion) >= MOTION and path_error(track, motion) < ERROR
    return is_whole_track(track) and near


def separation(motion: str, frames: int) -> float:  # px
    """How far the path of `motion` is from that of the nearest other one, and at least APART.

    In a short clip some motions cannot be told from each other.
    """
    own = path(motion, frames)
    return max(APART, min(path_error(own, other) for other in MOTIONS if other != motion))


def jitter(track: np.ndarray) -> float:  # (F, 2) px -> px
    """Mean distance from the nearest path or its opposite, of any motion; nan without an object."""
    if not seen(track):
        return np.nan
    return min(path_error(side * track, motion) for motion in MOTIONS for side in (1, -1))


def steadiness(track: np.ndarray) -> float:
    """1 on the path of any motion or its opposite, 0 where the nearest is APART or more away."""
    return _score(track, jitter(track), APART)


def seen(track: np.ndarray) -> bool:
    """Whether there is an object in some frame."""
    return bool(np.isfinite(track).any())


def is_whole_track(track: np.ndarray) -> bool:
    """Whether there is an object in every frame."""
    return bool(np.isfinite(track).all())


def _score(track: np.ndarray, error: float, scale: float) -> float:
    present = np.isfinite(track[:, 0]).mean()
    return float(present * max(0.0, 1 - error / scale)) if present else 0.0


def _deviation(track: np.ndarray, motion: str) -> np.ndarray:  # (frames with an object, 2) px
    present = np.isfinite(track[:, 0])
    off = (track - path(motion, len(track)))[present]
    return off - off.mean(0)
