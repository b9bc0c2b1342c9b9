"""Boxes of a file or of keyframes, and the parts of frames in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from jtcore.errors import JtError
from jtcore.evaluation.features import of_references

from ..controls._boxes import Box, Keyframe, box_at, in_order
from ._frames import OfFrames
from ._preparations import of_checkpoint
from ._references import first_frames, found_in, reference_problems

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from jtcore.types import Metric, Sample

    from ._clip import Looking

Boxes = Sequence[Box | None]  # of each frame; None where what is looked for is not seen


@frozen
class OfRegions(OfFrames):
    """Options of a metric that looks at boxes in frames by the network of its `_checkpoint`"""

    subject: str | None = None
    boxes: str | None = None
    path: tuple[Keyframe, ...] = field(default=(), validator=in_order)

    def __attrs_post_init__(self) -> None:
        if (self.boxes is None) == (not self.path):
            raise ValueError("expected boxes (a file) or path (keyframes), one of the two")

    def problems(self) -> list[str]:
        found = self._checkpoint.problems() + reference_problems("subject", self.subject)
        try:
            if self.boxes is not None:
                read_boxes(Path(self.boxes))
        except JtError as error:
            found += [f"boxes: {problem}" for problem in error.problems]
        return found

    def files(self) -> list[Path]:
        pictures = [] if self.subject is None else found_in(self.subject)
        return pictures + ([] if self.boxes is None else [Path(self.boxes)])

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": of_checkpoint(self._checkpoint).identity(),
            "frames": self.sampling(),
        }

    def likeness(self, name: str, looking: Looking, device: torch.device) -> Metric:
        """The metric whose value is called `name`, of regions and the pictures of the subject,
        whole. Raises JtError."""
        (references,) = of_references(
            self, device, lambda: [looking.embed(first_frames(self.subject))]
        )  # (R, E)

        def measure(sample: Sample) -> Mapping[str, float]:
            regions = self.regions(sample)
            if not regions:
                return {}
            return {name: (looking.embed(regions) @ references.T).mean().item()}

        return measure

    def regions(self, sample: Sample) -> list[Tensor]:  # uint8 (3, H, W) each
        """What is in the boxes of the frames that are looked at. Raises JtError where the file has
        boxes for another number of frames."""
        shown, count = self.shown_at(sample), sample.video.shape[1]
        boxes = self._boxes(sample)
        if boxes is None:
            return []
        if len(boxes) != count:
            raise JtError(
                f"boxes: {self.boxes!r} has {len(boxes)} boxes for a video of {count} frames"
                f" ({sample.prompt!r}, seed {sample.seed}); expected one for each"
            )
        pairs = [(picture, boxes[index]) for index, picture in shown]
        cuts = [cut(picture, box) for picture, box in pairs if box is not None]
        return [region for region in cuts if region.numel()]

    def _boxes(self, sample: Sample) -> Boxes | None:
        count = sample.video.shape[1]
        if self.boxes is None:
            return [box_at(self.path, index / max(count - 1, 1)) for index in range(count)]
        for entry in read_boxes(Path(self.boxes)):
            if entry.fits(sample):
                return entry.boxes
        return None


@frozen
class Entry:
    """The boxes of one video, or of all that are not told apart"""

    boxes: Boxes
    prompt: str | None = None
    seed: int | None = None

    def fits(self, sample: Sample) -> bool:
        return self.prompt in (None, sample.prompt) and self.seed in (None, sample.seed)


def read_boxes(path: Path) -> list[Entry]:
    """A JSON list of tables with `boxes`, and `prompt` and `seed` where they are of certain videos;
    the first that fits counts. Raises JtError."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JtError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(told, list) or not all(isinstance(entry, dict) for entry in told):
        raise JtError(f"{str(path)!r}: expected a list of tables with `boxes`")
    return [_entry(f"{str(path)!r}: entry {number}", each) for number, each in enumerate(told)]


def cut(picture: Tensor, box: Box) -> Tensor:  # uint8 (3, H, W) -> (3, h, w)
    """The pixels in a box, whose edges are rounded to whole ones, or the one pixel that it is in;
    nothing where it is outside."""
    height, width = picture.shape[1:]
    (top, bottom), (left, right) = _edges(box[0], box[2], height), _edges(box[1], box[3], width)
    return picture[:, top:bottom, left:right]


def _edges(start: float, end: float, size: int) -> tuple[int, int]:
    low, high = round(start * size), round(end * size)
    if low == high:  # thinner than a pixel
        low = int((start + end) / 2 * size // 1)
        high = low + 1
    return max(low, 0), max(min(high, size), 0)


def _entry(place: str, told: dict[str, Any]) -> Entry:
    boxes, prompt, seed = told.get("boxes"), told.get("prompt"), told.get("seed")
    if unknown := set(told) - {"boxes", "prompt", "seed"}:
        raise JtError(f"{place}: unknown key {min(unknown)!r}; expected boxes, prompt and seed")
    if not isinstance(boxes, list) or not all(map(_is_box, boxes)):
        raise JtError(
            f"{place}: expected `boxes` to be a list with [top, left, bottom, right] in parts of"
            " the frame, or null, for each frame"
        )
    if not isinstance(prompt, str | None) or type(seed) not in (int, type(None)):
        raise JtError(f"{place}: expected `prompt` to be text and `seed` to be a whole number")
    return Entry([None if box is None else tuple(box) for box in boxes], prompt, seed)


def _is_box(box: Any) -> bool:
    if box is None:
        return True
    is_four = isinstance(box, list) and len(box) == 4
    if not is_four or not all(type(edge) in (int, float) for edge in box):
        return False
    return box[0] < box[2] and box[1] < box[3]
