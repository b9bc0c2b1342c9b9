"""What training draws: at which times, and which noise; what else samples begin with.

Recipes are read without torch: only what draws imports it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import pi
from typing import TYPE_CHECKING, Literal

from attrs import Attribute, field, frozen
from attrs.validators import and_, deep_iterable, ge, gt, in_, le, min_len

if TYPE_CHECKING:
    from torch import Generator, Tensor

Axis = Literal["channel", "frame", "row", "column"]
AXES: tuple[Axis, ...] = ("channel", "frame", "row", "column")
HALVINGS = 52  # of an interval of float64


def _part_of_unit(instance: object, attribute: Attribute, ends: tuple[float, float]) -> None:
    low, high = ends
    if not 0 <= low < high <= 1:
        raise ValueError(f"expected two rising numbers from 0 to 1, got {list(ends)}")


def _spreads(instance: object, attribute: Attribute, law: tuple[float, float] | None) -> None:
    if law is not None and law[1] <= 0:
        raise ValueError(f"expected a mean and a standard deviation above 0, got {list(law)}")


@frozen
class Times:
    """At which times a branch trains: alike often at all, unless said

    They are said in u, which grows from 0 at clean latents to 1 at noise and in which the backbone
    draws them uniformly; a flow that shifts its times shifts them after that.

    skew: makes the density 1 - skew cos(pi u), so that above 0 noise is more frequent, up to
        1 + skew times (https://arxiv.org/abs/2312.04966), and below 0 clean latents
    logit_normal: mean and standard deviation of log(u / (1 - u)), which is normal then
        (https://arxiv.org/abs/2403.03206)
    within: the part of all u over which that is stretched
    """

    skew: float = field(default=0.0, validator=and_(ge(-1), le(1)))
    logit_normal: tuple[float, float] | None = field(default=None, validator=_spreads)
    within: tuple[float, float] = field(default=(0.0, 1.0), validator=_part_of_unit)

    def __attrs_post_init__(self) -> None:
        if self.skew and self.logit_normal:
            raise ValueError("expected skew or logit_normal, got both")

    def quantile(self, uniform: Tensor) -> Tensor:  # (B,) in [0, 1], float64, twice
        """The u below which a share of `uniform` of all times lies."""
        low, high = self.within
        return low + (high - low) * self._unstretched(uniform)

    def _unstretched(self, share: Tensor) -> Tensor:  # (B,)
        import torch

        if self.logit_normal:
            mean, std = self.logit_normal
            return torch.sigmoid(mean + std * torch.special.ndtri(share))
        low, high = torch.zeros_like(share), torch.ones_like(share)
        for _ in range(HALVINGS if self.skew else 0):
            middle = (low + high) / 2
            short = middle - self.skew / pi * torch.sin(pi * middle) < share
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return high if self.skew else share


@frozen
class SharedNoise:
    """Noise that is alike along some axes, and is added to that which is not

    std: standard deviation of N(0, std^2), beside the 1 of the other
    shared: the axes along which it is one number; ["row", "column"] shifts each frame's channels
    """

    std: float = field(validator=gt(0))
    shared: tuple[Axis, ...] = field(validator=[min_len(1), deep_iterable(in_(AXES))])

    def draw(self, shape: Sequence[int], rng: Generator) -> Tensor:
        """Of `shape` (B, C, F, H, W), but with size 1 along the shared axes."""
        return draw_shared(shape, self.shared, self.std, rng)


def draw_shared(
    shape: Sequence[int], shared: Collection[Axis], std: float, rng: Generator
) -> Tensor:
    """N(0, std^2) that varies along the axes not `shared`, with size 1 along those that are; for a
    `shape` (B, C, F, H, W). Drawn on the CPU, so that it is the same on every device."""
    import torch

    sizes = [1 if axis in shared else size for axis, size in zip(AXES, shape[1:], strict=True)]
    return std * torch.randn(shape[0], *sizes, generator=rng)


@frozen
class Draws:
    """Times and noise of a batch, as a backbone asks for them. All are drawn on the CPU, alike on
    every device, and from `rng` alone."""

    times: Times = Times()
    offset: SharedNoise | None = None

    def steps(self, count: int, of: int, rng: Generator) -> Tensor:  # (count,), int64
        """Indices below `of`, the number of levels of a discrete schedule."""
        import torch

        steps = torch.randint(of, (count,), generator=rng)
        if self.times == Times():
            return steps
        places = torch.rand(count, generator=rng, dtype=torch.float64)  # of each in its level
        moved = self.times.quantile((steps + places) / of)
        return (of * moved).long().clamp(max=of - 1)

    def moved(self, uniform: Tensor) -> Tensor:  # (B,) in [0, 1]
        """Draws from a uniform distribution, moved to where the times are to be."""
        if self.times == Times():
            return uniform
        return self.times.quantile(uniform.double()).to(uniform)

    def noise(self, shape: Sequence[int], rng: Generator) -> Tensor:  # (B, C, F, H, W), float32
        """Normal noise, with what its axes share."""
        import torch

        noise = torch.randn(*shape, generator=rng)
        return noise if self.offset is None else noise + self.offset.draw(shape, rng)


PLAIN = Draws()


@frozen
class At(Draws):
    """All samples at one place of the schedule, u as `Times` has it; noise as otherwise."""

    place: float = field(default=0.5, validator=and_(ge(0), le(1)))

    def steps(self, count: int, of: int, rng: Generator) -> Tensor:  # (count,), int64
        import torch

        return torch.full((count,), min(int(self.place * of), of - 1))

    def moved(self, uniform: Tensor) -> Tensor:  # (B,)
        import torch

        return torch.full_like(uniform, self.place)


def quantiles(count: int) -> tuple[At, ...]:
    """The middles of `count` equal parts of the schedule, from clean to noise."""
    return tuple(At(place=(part + 0.5) / count) for part in range(count))
