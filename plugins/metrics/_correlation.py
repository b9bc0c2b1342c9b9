"""How alike places of two frames are, looked up around where a flow points
(https://arxiv.org/abs/2003.12039), and frames seen along a flow."""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional


@frozen(eq=False)
class BothWays:
    """Correlations of all places of two frames, as pyramids, from each frame to the other"""

    one: Tensor  # (B, C, h, w), features of a frame
    other: Tensor
    levels: int
    _pyramids: tuple[list[Tensor], list[Tensor]] = field(init=False)

    @_pyramids.default
    def _correlate(self) -> tuple[list[Tensor], list[Tensor]]:
        channels = self.one.shape[1]
        alike = torch.einsum("bcij,bckl->bijkl", self.one, self.other) / channels**0.5
        back = alike.permute(0, 3, 4, 1, 2)
        return pyramid(alike, self.levels), pyramid(back, self.levels)

    def look_up(self, there: Tensor, back: Tensor, radius: int) -> Tensor:
        """Around points (B, 2, h, w) of the other frame, and of the first: (B, P, h, w) with
        P = 2 x levels x (2 radius + 1)^2, the finest level first."""
        found = []
        for maps, points in zip(self._pyramids, (there, back), strict=True):
            around = points.permute(0, 2, 3, 1).flatten(0, 2)[:, None, None]  # (B h w, 1, 1, 2)
            for level, values in enumerate(maps):
                picked = picked_at(values, around / 2**level + window(radius).to(around))
                found.append(picked.reshape(*points[:, 0].shape, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2)


def pyramid(alike: Tensor, levels: int) -> list[Tensor]:
    """(B, h, w, h, w) -> maps (B h w, 1, h / 2^level, w / 2^level)"""
    maps = [alike.flatten(0, 2)[:, None]]
    for _ in range(levels - 1):
        maps.append(functional.avg_pool2d(maps[-1], 2))
    return maps


def window(radius: int) -> Tensor:  # (2 radius + 1, 2 radius + 1, 2): steps (x, y), x by row
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)


def picked_at(maps: Tensor, points: Tensor) -> Tensor:
    """(N, 1, h, w) at points (N, r, r, 2), x before y and in pixels -> (N, r, r), linearly between
    pixels; outside it is 0."""
    size = points.new_tensor([maps.shape[3], maps.shape[2]])
    places = (2 * points + 1) / size - 1
    return functional.grid_sample(maps, places, padding_mode="zeros", align_corners=False)[:, 0]


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """(B, C, h, w) seen along a flow (B, 2, h, w), x before y and in pixels: each pixel is read
    where its flow points, linearly between pixels; outside, the nearest edge is read."""
    height, width = picture.shape[2:]
    size = flow.new_tensor([width, height]).view(2, 1, 1)
    places = (2 * (pixel_grid(flow) + flow) + 1) / size - 1
    return functional.grid_sample(
        picture, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def pixel_grid(like: Tensor) -> Tensor:  # (B, C, h, w) -> (1, 2, h, w)
    """Where each pixel is, x before y."""
    rows, columns = (torch.arange(side, device=like.device) for side in like.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])[None].to(like)
