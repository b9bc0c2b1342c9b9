"""The files of a `[data.NAME]` table as pixels, framed as it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from jtcore.data import Data
from jtcore.decode import read_frames, read_image, timeline
from jtcore.errors import JtError
from jtcore.framing import choose_clips, fit, flip, lay, share_cropped
from jtcore.zoom import View


def clips_of(path: Path, data: Data) -> list[tuple[int, ...]]:
    """The indices of the frames of each clip. Raises JtError where the file is short or bad."""
    return choose_clips(timeline(path), data.frames, data.fps, data.stride, data.clips, data.short)


def read_clips(path: Path, data: Data) -> tuple[list[Tensor], float]:
    """Each clip, uint8 (3, frames, height, width), and the share of its pictures, in [0, 1], that
    was cropped away. Raises JtError."""
    clips, fitted, share = clips_of(path, data), {}, 0.0
    for index, pixels in read_frames(path, {index for clip in clips for index in clip}):
        fitted[index] = fit(pixels, data.size)
        share = share_cropped(*pixels.shape[2:], data.size)
    return [torch.cat([fitted[index] for index in clip], 1) for clip in clips], share


def read_views(path: Path, data: Data, views: Sequence[View]) -> tuple[list[Tensor], float]:
    """What `read_clips` answers, of each view: the clips in turn, scaled and laid as it says."""
    clips, share = clips_of(path, data), 0.0
    shown = [clips[number % len(clips)] for number in range(len(views))]
    framed: list[dict[int, Tensor]] = [{} for _ in views]
    for index, pixels in read_frames(path, {index for clip in shown for index in clip}):
        share = share_cropped(*pixels.shape[2:], data.size)
        for clip, view, frames in zip(shown, views, framed, strict=True):
            if index in clip:
                frames[index] = see(pixels, data.size, view)
    pairs = zip(shown, framed, strict=True)
    return [torch.cat([frames[index] for index in clip], 1) for clip, frames in pairs], share


def see(pixels: Tensor, size: tuple[int, int], view: View) -> Tensor:
    """Frames (C, F, H, W) as a view shows them: (C, F, *size)."""
    laid = lay(fit(pixels, view.scaled), size, view.top, view.left)
    return flip(laid) if view.flipped else laid


def view_masks(path: Path, data: Data, views: Sequence[View]) -> list[Tensor]:
    """Of each view, uint8 (1, 1, height, width): where the picture is, and its mask if it has one.
    Raises JtError."""
    if data.masks is not None:
        whole = read_image(check_mask(path, data))[:1]
    else:
        whole = torch.full((1, 1, *data.size), 255, dtype=torch.uint8)
    return [see(whole, data.size, view) for view in views]


def mask_of(path: Path, data: Data) -> Path | None:
    """The file of a picture's mask, if the table has masks. Raises JtError where it is missing."""
    if data.masks is None:
        return None
    mask = Path(data.masks) / f"{path.stem}.png"
    if not mask.is_file():
        raise JtError(f"{mask}: is missing, the mask of {path.name}")
    return mask


def read_mask(path: Path, data: Data) -> Tensor:  # uint8 (1, 1, height, width)
    """The mask of a picture, framed as the picture is. Raises JtError."""
    return fit(read_image(check_mask(path, data))[:1], data.size)


def check_mask(path: Path, data: Data) -> Path:
    """The file of a picture's mask. Raises JtError where it is not the mask of this picture."""
    if len(timeline(path).starts) > 1:
        raise JtError(f"{path}: moves, and a mask is one picture; expected pictures")
    place = mask_of(path, data)
    mask, picture = read_image(place), read_image(path)
    if mask.shape != picture.shape:
        found, wanted = (f"{each.shape[2]}x{each.shape[3]}" for each in (mask, picture))
        raise JtError(f"{place}: is {found} pixels, expected {wanted} as {path.name} has")
    if (mask != mask[:1]).any():
        raise JtError(f"{place}: has colours, expected grey, white where the subject is")
    if mask.max() < 128:
        raise JtError(f"{place}: is dark all over, expected white where the subject is")
    return place
