"""Which frames of a file are shown to the model, and which part of each."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from jtcore.decode import Timeline
from jtcore.errors import JtError

ROUNDING = 1e-3  # s: containers store times in whole milliseconds

Short = Literal["error", "repeat"]


def choose_clips(
    timeline: Timeline,
    frames: int,
    fps: float | None = None,
    stride: int | None = None,
    clips: int = 1,
    short: Short = "error",
) -> list[tuple[int, ...]]:
    """The indices of each clip's frames.

    With `fps` a clip shows what a player shows at each 1 / fps s; with `stride` it has every n-th
    frame; with neither it is spread evenly over the whole time. Clips start evenly over the file,
    and equal ones are given once. A short file is a JtError, or its last frame is held.
    """
    count, ordinals = len(timeline.starts), range(clips)
    if fps is None and stride is None and count >= frames:
        step = timeline.seconds / frames
        spread = [_at_times(timeline, (k + 0.5) / clips * step, step, frames) for k in ordinals]
        return list(dict.fromkeys(spread))
    if fps is not None:
        room = timeline.seconds - (frames - 1) / fps - 2 * ROUNDING
    else:
        room = count - 1 - (frames - 1) * (stride or 1)
    if room < 0 and frames > 1 and short == "error":
        raise JtError(_too_short(timeline, frames, fps, stride))
    starts = [max(room, 0) * k / max(clips - 1, 1) for k in ordinals]
    if fps is not None:
        chosen = [_at_times(timeline, start, 1 / fps, frames) for start in starts]
    else:
        chosen = [_counted(count, int(start), stride or 1, frames) for start in starts]
    return list(dict.fromkeys(chosen))


def share_cropped(height: int, width: int, size: tuple[int, int]) -> float:
    """The share of a picture's area, in [0, 1], that `fit` cuts away."""
    tall, wide = _covering(height, width, size)
    return 1 - size[0] * size[1] / (tall * wide)


def fit(pixels: Tensor, size: tuple[int, int]) -> Tensor:  # uint8 (C, F, H, W) -> (C, F, *size)
    """Scale to cover the size, keeping the aspect ratio, and cut out the centre.

    A whole factor averages squares, so what was enlarged by it comes back exactly; any other is
    bicubic, antialiased.
    """
    height, width = pixels.shape[2:]
    tall, wide = _covering(height, width, size)
    frames = pixels.transpose(0, 1).float()  # (F, C, H, W)
    if height % tall == 0 and height // tall * wide == width:
        frames = F.avg_pool2d(frames, height // tall)
    else:
        frames = F.interpolate(frames, (tall, wide), mode="bicubic", antialias=True)
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    frames = frames[:, :, top : top + size[0], left : left + size[1]]
    return frames.round().clamp(0, 255).byte().transpose(0, 1).contiguous()


def lay(pixels: Tensor, size: tuple[int, int], top: int, left: int) -> Tensor:
    """The part of a clip (C, F, height, width) that begins at a place; or, of one that is smaller
    than the size, the clip at that place on black. (C, F, *size)."""
    height, width = pixels.shape[2:]
    if (height, width) > size:
        return pixels[:, :, top : top + size[0], left : left + size[1]].contiguous()
    framed = pixels.new_zeros(*pixels.shape[:2], *size)
    framed[:, :, top : top + height, left : left + width] = pixels
    return framed


def flip(pixels: Tensor) -> Tensor:  # (..., W) -> (..., W)
    """Left and right exchanged."""
    return pixels.flip(-1)


def _covering(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """The smallest height and width of the picture's aspect ratio that cover the size."""
    scale = max(size[0] / height, size[1] / width)
    return max(size[0], round(height * scale)), max(size[1], round(width * scale))


def _at_times(timeline: Timeline, start: float, step: float, frames: int) -> tuple[int, ...]:
    """The frames that a player shows at `start`, `start + step`, ... seconds."""
    times = (start + step * k + ROUNDING for k in range(frames))
    return tuple(max(bisect_right(timeline.starts, time) - 1, 0) for time in times)


def _counted(count: int, start: int, stride: int, frames: int) -> tuple[int, ...]:
    return tuple(min(start + stride * k, count - 1) for k in range(frames))


def _too_short(timeline: Timeline, frames: int, fps: float | None, stride: int | None) -> str:
    count = len(timeline.starts)
    found = "1 frame" if count == 1 else f"{count} frames ({timeline.seconds:.1f} s)"
    if fps is not None:
        wanted = f"more than {(frames - 1) / fps:.1f} s ({frames} frames at {fps:g} fps)"
        cure = "fewer frames or a higher fps"
    elif stride is not None:
        wanted = f"at least {(frames - 1) * stride + 1} ({frames} frames, stride {stride})"
        cure = "fewer frames or a smaller stride"
    else:
        wanted, cure = f"at least {frames}", "fewer frames"
    return (
        f"{timeline.path}: holds {found}, expected {wanted}; ask for {cure}, "
        'or hold its last frame with short = "repeat"'
    )
