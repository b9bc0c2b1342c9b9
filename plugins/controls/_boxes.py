"""Boxes that move from keyframe to keyframe, and the latents and tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from attrs import Attribute, field, frozen
from attrs.validators import ge, le
from torch import Tensor

from jtcore.controls import Grid, Walk

Box = tuple[float, float, float, float]  # top, left, bottom, right, in parts of the frame


def _has_area(instance: object, attribute: Attribute, box: Box) -> None:
    top, left, bottom, right = box
    if not (top < bottom and left < right):
        raise ValueError(f"expected [top, left, bottom, right], got {list(box)}")


@frozen
class Keyframe:
    """Where a box is at a time: 0 is the first frame, 1 the last"""

    at: float = field(validator=[ge(0), le(1)])
    box: Box = field(validator=_has_area)


def in_order(instance: object, attribute: Attribute, path: tuple[Keyframe, ...]) -> None:
    """Validates keyframes."""
    if any(before.at >= after.at for before, after in pairwise(path)):
        raise ValueError(f"expected rising `at`, got {[each.at for each in path]}")


def box_at(path: Sequence[Keyframe], at: float) -> Box:
    """Between keyframes in proportion; before the first and after the last, held."""
    for before, after in pairwise(path):
        if before.at <= at <= after.at:
            share = (at - before.at) / (after.at - before.at)
            pairs = zip(before.box, after.box, strict=True)
            return tuple(start + share * (end - start) for start, end in pairs)
    return path[0].box if at < path[0].at else path[-1].box


def cells(
    path: Sequence[Keyframe], walk: Walk, grid: Grid, together: int = 1
) -> Tensor:  # (F, H, W) of the grid, bool
    """Those whose centres are in the boxes of any pixel frame that they stand for, each box moved
    as its latent frame was."""
    found = torch.zeros(grid, dtype=torch.bool)
    scale = torch.tensor(walk.shape[1:])
    for latent, by in enumerate((walk.moved / scale).tolist()):
        for frame in walk.pixel_frames(latent):
            box = box_at(path, frame / max(walk.frames - 1, 1))
            found[latent // together] |= _inside(box, by, grid[1:])
    return found


def _inside(box: Box, by: Sequence[float], sizes: Sequence[int]) -> Tensor:  # (H, W), bool
    axes = []
    for first, last, offset, size in zip(box[:2], box[2:], by, sizes, strict=True):
        centres = (torch.arange(size) + 0.5) / size
        axis = (centres >= first + offset) & (centres < last + offset)
        middle = int(((first + last) / 2 + offset) * size // 1)
        if not axis.any() and 0 <= middle < size:
            axis[middle] = True  # a box between two centres
        axes.append(axis)
    return axes[0][:, None] & axes[1]
