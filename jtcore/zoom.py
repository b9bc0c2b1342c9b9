"""Pictures and clips shown smaller or larger than they are, with captions that say so."""

from __future__ import annotations

from random import Random

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le, min_len

Size = tuple[int, int]  # height, width


def _rising(instance: object, attribute: Attribute, scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"expected two rising scales above 0, got {list(scale)}")


@frozen
class Band:
    """A range of scales, and what captions begin with there

    scale: lowest and highest, of the framed picture's sides; below 1 it lies on black, somewhere;
        above 1 a part of it is cut out, anywhere
    weight: how often, compared to the other bands
    prefixes: one of these stands before the caption; without any it stays
    """

    scale: tuple[float, float] = field(validator=_rising)
    weight: float = field(default=1.0, validator=gt(0))
    prefixes: tuple[str, ...] = ()


@frozen
class View:
    """One of the ways in which a file is shown"""

    scaled: Size  # px, of the whole clip
    top: int  # px, where it lies in the frame, or where it is cut
    left: int
    flipped: bool
    prefix: str


@frozen
class Zoom:
    """Each file is encoded in a number of views, drawn once; each draw takes one of them

    bands: of scales; a view's band is drawn by weight, its scale evenly within
    views: of each file
    """

    bands: tuple[Band, ...] = field(validator=min_len(1))
    views: int = field(default=16, validator=[ge(1), le(1000)])

    def draw(self, size: Size, flip: bool, seed: str) -> list[View]:
        """The views of a file in frames of `size`, a function of the seed; half are mirrored with
        `flip`."""
        rng = Random(seed)
        return [self._view(size, flip, rng) for _ in range(self.views)]

    def captions(self, caption: str) -> list[str]:
        """All that may be said of a view of what has a caption."""
        prefixes = (prefix for band in self.bands for prefix in band.prefixes or ("",))
        return list(dict.fromkeys(prefixed(prefix, caption) for prefix in prefixes))

    def _view(self, size: Size, flip: bool, rng: Random) -> View:
        (band,) = rng.choices(self.bands, [band.weight for band in self.bands])
        scale = rng.uniform(*band.scale)
        height, width = (max(1, round(scale * side)) for side in size)
        top, left = (
            rng.randint(0, abs(whole - own))
            for whole, own in zip(size, (height, width), strict=True)
        )
        flipped = rng.random() < 0.5 and flip
        prefix = rng.choice(band.prefixes or ("",))
        return View((height, width), top, left, flipped, prefix)


def prefixed(prefix: str, caption: str) -> str:
    return f"{prefix} {caption}" if prefix else caption
