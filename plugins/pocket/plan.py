"""How much pocket is trained, and how."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt

from .world import FRAMES


@frozen
class Plan:
    """A pretraining; the defaults made the shipped weights"""

    centred_steps: int = field(default=1500, validator=ge(0))  # all stands in the middle
    standing_steps: int = field(default=2300, validator=ge(0))  # till then, all stands somewhere
    image_steps: int = field(default=2900, validator=ge(0))  # till then, clips have one frame
    growing_steps: int = field(default=1400, validator=ge(0))  # while clips grow to full length
    video_steps: int = field(default=8000, validator=ge(0))
    image_batch: int = field(default=32, validator=gt(0))
    video_batch: int = field(default=16, validator=gt(0))  # shorter clips: more of them
    image_share: float = 0.2  # of the steps after the first phase
    matrix_lr: float = 0.01  # of Muon, for the matrices of the blocks
    lr: float = 3e-3  # of AdamW, for all else
    ema: float = 0.998
    warm_up: int = 50
    decay: int = field(default=4000, validator=gt(0))  # the last steps, linearly to zero
    offset: float = field(default=0.25, validator=ge(0))  # px off the anchors at first
    wide_offset: float = field(default=0.75, validator=ge(0))  # px off the anchors at last
    unplaced: float = 0.35  # of the captions say no position at last
    widening: int = field(default=4000, validator=gt(0))  # the last steps, places grow freer
    codec_clips: int = field(default=1024, validator=gt(1))

    def __attrs_post_init__(self) -> None:
        if not self.centred_steps <= self.standing_steps <= self.image_steps:
            raise ValueError("expected centred_steps <= standing_steps <= image_steps")

    @property
    def steps(self) -> int:
        return self.image_steps + self.growing_steps + self.video_steps

    def frames(self, step: int) -> int:
        """The length of clips at `step`.

        Paths lie around their anchors, so in whole videos neither a motion's word nor a frame's
        index alone predicts anything, only both together, which gives no gradient to begin with.
        The first frame's place does depend on the word; from there the clips grow frame by frame.
        """
        if step < self.image_steps:
            return 1
        grown = (step - self.image_steps) / max(1, self.growing_steps)
        return min(FRAMES, 2 + int(grown * (FRAMES - 2)))

    def rate(self, step: int) -> float:
        """The learning rate at `step`, relative to its peak."""
        return min(1.0, (step + 1) / self.warm_up, (self.steps - step) / self.decay)

    def freedom(self, step: int) -> float:
        """How far positions have been freed at `step`, 0 to 1."""
        begun = 1 - (self.steps - step) / self.widening
        return min(1.0, max(0.0, 1.5 * begun))
