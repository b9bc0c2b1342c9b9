"""How like a sprite the object is: correlation with its template, at its best place and scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from attrs import frozen
from numpy.lib.stride_tricks import sliding_window_view

from ..sprites import Background, Sprite
from ..world import SIZE, coverage
from .tracking import track

PATCH = 14  # px, holds a sprite of the greatest scale at every phase
SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
PHASES = tuple((y, x) for y in (0.0, 0.5) for x in (0.0, 0.5))  # px
AROUND = 2  # px, how far from the centre of its silhouette a sprite's centre is looked for
POSES = tuple((scale, phase) for scale in SCALES for phase in PHASES)


@frozen(eq=False)
class Likeness:
    """How like one sprite the object is, in each frame; zeros where there is no object"""

    correlation: np.ndarray  # (F,) in [-1, 1]
    places: np.ndarray  # (F, 2) px, (y, x) of the sprite's centre
    scales: np.ndarray  # (F,), 1 is the world's


def likenesses(
    video: np.ndarray,  # (3, F, SIZE, SIZE)
    sprites: Sequence[Sprite],
    background: Background,
    mixing: np.ndarray | None = None,  # (3, 3), applied to all colours before they are compared
) -> list[Likeness]:
    """Compare the object to each sprite, each at its own best place and scale in each frame.

    Compared is what the object adds to the `background`, in a window of PATCH px: the cosine
    between that of the video and that of an exact rendering of the sprite. 1 is a perfect copy, up
    to the strength of its contrast.
    """
    places = track(video, background)
    present = np.isfinite(places[:, 0])
    if not present.any():
        nothing = np.zeros(len(places))
        return [Likeness(nothing, np.zeros((len(places), 2)), nothing) for _ in sprites]
    corners, windows, grounds = _windows(video, background, np.nan_to_num(places, nan=SIZE / 2))
    poses = np.stack([_poses(sprite) for sprite in sprites])
    if mixing is not None:
        windows, grounds = mixed(windows, mixing), mixed(grounds, mixing)
        poses = np.concatenate([mixed(poses[:, :, :3], mixing), poses[:, :, 3:]], 2)
    found = _cosines(windows, grounds, poses)  # (sprites, F, windows, poses)
    return [_best(each, corners, present) for each in found]


def likeness(video: np.ndarray, sprite: Sprite, background: Background) -> Likeness:
    """`likenesses` with one sprite."""
    return likenesses(video, [sprite], background)[0]


def mixed(colours: np.ndarray, mixing: np.ndarray) -> np.ndarray:  # (N, M, 3, P, P), (3, 3)
    return np.einsum("ij,nmjyx->nmiyx", mixing, colours)


def _best(cosines: np.ndarray, corners: np.ndarray, present: np.ndarray) -> Likeness:
    """The best pose, of (F, windows, poses), whose windows have `corners` (F, windows, 2)."""
    best = cosines.reshape(len(cosines), -1).argmax(1)
    window, pose = np.divmod(best, len(POSES))
    frames = np.arange(len(cosines))
    phases = np.array([phase for _, phase in POSES])[pose]
    return Likeness(
        cosines[frames, window, pose] * present,
        (corners[frames, window] + PATCH / 2 + phases) * present[:, None],
        np.array([scale for scale, _ in POSES])[pose] * present,
    )


def _windows(
    video: np.ndarray, background: Background, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners (F, N, 2) of windows near `places`; what is added there; the ground there.

    The latter two are (F, N, 3, PATCH, PATCH), and 0 outside the frame.
    """
    ground = background.pixels(SIZE)
    added = (video - ground[:, None]).swapaxes(0, 1)  # (F, 3, H, W)
    steps = np.arange(-AROUND, AROUND + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    first = np.floor(places - PATCH / 2).astype(int)[:, None] + offsets  # (F, N, 2)
    rows, columns = (first + PATCH).transpose(2, 0, 1)  # in the padded frame
    rows, columns = (i.clip(0, SIZE + PATCH) for i in (rows, columns))
    frames = np.arange(len(added))[:, None]
    return (
        np.stack([rows, columns], -1) - PATCH,
        _padded_windows(added)[frames, rows, columns],
        _padded_windows(ground[None])[0, rows, columns],
    )


def _padded_windows(images: np.ndarray) -> np.ndarray:  # (F, 3, H, W)
    """A view (F, corners, corners, 3, PATCH, PATCH), the first corner at (-PATCH, -PATCH)."""
    sides = ((0, 0), (0, 0), (PATCH, PATCH), (PATCH, PATCH))
    views = sliding_window_view(np.pad(images, sides), (PATCH, PATCH), axis=(2, 3))
    return views.transpose(0, 2, 3, 1, 4, 5)


def _cosines(added: np.ndarray, ground: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Between what a video adds and what sprites would add to the ground.

    `added` and `ground` are (F, N, 3, P, P), `poses` (S, K, 4, P, P); the answer is (S, F, N, K).
    A sprite adds colour - alpha * ground, whose products are expanded to be matrix products.
    """
    colour, alpha = poses[:, :, :3], poses[:, :, 3:]
    product = _dot(added, colour) - _dot((added * ground).sum(2, keepdims=True), alpha)
    square = np.square(colour).sum((2, 3, 4))[:, None, None] - 2 * _dot(ground, colour * alpha)
    square += _dot(np.square(ground).sum(2, keepdims=True), np.square(alpha))
    length = np.sqrt(np.square(added).sum((2, 3, 4)))[None, :, :, None]
    return product / np.maximum(np.sqrt(square.clip(min=0)) * length, 1e-6)


def _dot(images: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(F, N, C, P, P), (S, K, C, P, P) -> (S, F, N, K)"""
    flat = images.reshape(*images.shape[:2], -1)
    return np.einsum("fnd,skd->sfnk", flat, poses.reshape(*poses.shape[:2], -1), optimize=True)


@cache
def _poses(sprite: Sprite) -> np.ndarray:  # (poses, 4, PATCH, PATCH)
    """The sprite at each scale and phase, as Sprite.template has it, in pixels."""
    middle = np.full(2, PATCH / 2)
    return np.stack([draw(sprite, middle + phase, scale, PATCH) for scale, phase in POSES])


def draw(sprite: Sprite, place: np.ndarray, scale: float, size: int) -> np.ndarray:
    """A sprite on a canvas of `size` px: (4, size, size), colour times alpha and alpha."""
    rows, columns = coverage(np.asarray(place, np.float32), scale, size)
    return rows @ sprite.template() @ columns.T
