"""MotionBooth's latent shift: the picture moves as one, as if the camera did."""

from __future__ import annotations

import torch
from attrs import Attribute, field, frozen
from torch import Generator, Tensor

from jtcore import JtError, hookimpl
from jtcore.controls import Control, Walk
from jtcore.scales import Unit, reached


def _in_order(instance: object, attribute: Attribute, between: tuple[float, float]) -> None:
    begin, end = between
    if not (begin > end if instance.unit == "sigma" else begin < end):
        raise ValueError(f"expected a beginning and an end in order of sampling, got {[*between]}")


@frozen
class LatentShift:
    """The whole picture moves by `right` and `down` px over the clip

    While sampling is between two moments, counted in `unit` as a `[sample.schedule]` is, latents of
    each frame f are moved until they have come round(speed / cell * f / F) cells
    (https://arxiv.org/abs/2406.17758), F frames being sampled; a cell is what a latent has of px. A
    latent frame that stands for several moves as the last of them. What is laid bare is filled with
    latents of the same row, or column, from outside of the boxes of other controls, which move
    along. A camera that pans right moves the picture left: `right` is negative then.
    """

    right: float = 0.0
    down: float = 0.0
    unit: Unit = "step"
    between: tuple[float, float] = field(default=(10.0, 20.0), validator=_in_order)

    def begin(self, walk: Walk) -> Shifted:
        return Shifted(self, walk)


class Shifted(Control):
    def __init__(self, options: LatentShift, walk: Walk) -> None:
        begin, end = options.between
        self.walk = walk
        self.steps = [
            index
            for index, moment in enumerate(walk.moments)
            if reached(options.unit, begin, moment) and not reached(options.unit, end, moment)
        ]
        count, height, width = walk.shape
        cells = torch.tensor(
            [options.down * height / walk.size[0], options.right * width / walk.size[1]]
        )
        last = torch.tensor([walk.pixel_frames(latent)[-1] for latent in range(count)])
        self.whole = cells * last[:, None] / walk.frames  # (F, 2), rows and columns
        self.done = torch.zeros_like(self.whole)
        if self.whole.any() and not self.steps:
            raise JtError(
                f"none of {len(walk.moments)} steps is between {begin:g} and {end:g} in"
                f" {options.unit}; change `between`"
            )

    def move(self, index: int, latents: Tensor, rng: Generator) -> Tensor:  # (C, F, H, W)
        if index not in self.steps:
            return latents
        share = (self.steps.index(index) + 1) / len(self.steps)
        due = (self.whole * share).round()
        by, self.done = due - self.done, due
        if not by.any():
            return latents
        held = torch.zeros(self.walk.shape, dtype=torch.bool)
        for each in self.walk.held:
            held |= each.cells()
        self.walk.moved.add_(by)
        each = zip(latents.unbind(1), held, by.int().tolist(), strict=True)
        return torch.stack([_moved(frame, kept, *way, rng) for frame, kept, way in each], 1)


def _moved(frame: Tensor, held: Tensor, down: int, right: int, rng: Generator) -> Tensor:
    """A frame (C, H, W) and what is held in it (H, W), moved."""
    across = slide(frame, ~held, right, rng)
    return slide(across.mT, ~held.roll(right, 1).mT, down, rng).mT


def slide(frame: Tensor, free: Tensor, by: int, rng: Generator) -> Tensor:
    """Move the columns of a `frame` (C, H, W) right; each row's laid bare are filled with others of
    it, drawn from where `free` (H, W) says so, from anywhere where that is nowhere."""
    if by == 0:
        return frame
    width = frame.shape[2]
    bare = range(min(by, width)) if by > 0 else range(max(width + by, 0), width)
    moved = frame.roll(by, 2)
    for row, candidates in enumerate(free):
        columns = candidates.nonzero()[:, 0] if candidates.any() else torch.arange(width)
        moved[:, row, bare] = frame[:, row, _draw(columns, len(bare), rng).to(frame.device)]
    return moved


def _draw(columns: Tensor, count: int, rng: Generator) -> Tensor:
    """Different ones, as long as there are."""
    if len(columns) >= count:
        return columns[torch.randperm(len(columns), generator=rng)[:count]]
    return columns[torch.randint(len(columns), (count,), generator=rng)]


@hookimpl
def jt_controls() -> dict[str, type]:
    return {"latent_shift": LatentShift}
