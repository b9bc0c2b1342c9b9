"""Scales of adapters that change while noise becomes clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isclose
from typing import TYPE_CHECKING, Literal

from attrs import Attribute, field, frozen
from attrs.validators import min_len

if TYPE_CHECKING:  # recipes are read without torch
    import torch
    from torch import Tensor

    from jtcore.diffusion import Levels

Unit = Literal["step", "fraction", "sigma", "log_snr"]
Half = Literal["both", "prompted", "negative"]
ROUNDING = 1e-6  # relative: schedules of noise are float32


@frozen
class Moment:
    """Where sampling stands, in each unit."""

    step: float  # from 0
    fraction: float  # of the steps that are done, in [0, 1)
    sigma: float  # of the noise, falling
    log_snr: float  # rising


def _in_order(instance: object, attribute: Attribute, at: tuple[float, ...]) -> None:
    falling = instance.unit == "sigma"
    if any(now >= then if falling else now <= then for then, now in pairwise(at)):
        way = "boundaries that fall, as sigma does" if falling else "rising boundaries"
        raise ValueError(f"expected {way}, got {list(at)}")


def _one_for_each_part(instance: object, attribute: Attribute, scales: tuple[float, ...]) -> None:
    if isinstance(instance.at, tuple) and len(scales) != len(instance.at) + 1:
        expected = f"{len(instance.at) + 1}, one more than boundaries"
        raise ValueError(f"expected {expected}, got {len(scales)}")


@frozen
class ScaleSchedule:
    """Factors on an adapter's scale, which change at boundaries

    unit: what boundaries are counted in: steps, the fraction of all steps, the noise's sigma, or
        the logarithm of signal^2 / sigma^2, which carries from one backbone's schedule to another's
    at: the boundaries, in the order of sampling; a step that stands on one is beyond it
    scales: factors before the first boundary, between them, and beyond the last
    on: the half of guidance that they apply to; the other keeps the plain scale
    """

    unit: Unit
    at: tuple[float, ...] = field(validator=[min_len(1), _in_order])
    scales: tuple[float, ...] = field(validator=_one_for_each_part)
    on: Half = "both"

    def halves(self, scale: float, moment: Moment) -> tuple[float, float]:
        """The adapter's `scale` at `moment`, on the negative and on the prompted half."""
        changed = (
            scale * self.scales[sum(reached(self.unit, boundary, moment) for boundary in self.at)]
        )
        return (
            scale if self.on == "prompted" else changed,
            scale if self.on == "negative" else changed,
        )


def reached(unit: Unit, boundary: float, moment: Moment) -> bool:
    """Whether sampling stands on a boundary or beyond it."""
    now = getattr(moment, unit)
    beyond = now <= boundary if unit == "sigma" else now >= boundary
    return beyond or isclose(now, boundary, rel_tol=ROUNDING)


def moments(times: Sequence[Tensor], levels: Callable[[Tensor], Levels]) -> list[Moment]:
    """Where each step stands of a walk through `times`, each (), whose noise `levels` tells."""
    import torch

    at = levels(torch.stack(list(times)))
    sigmas, log_snrs = at.sigma.tolist(), at.log_snr.tolist()
    return [
        Moment(step, step / len(times), sigma, log_snr)
        for step, (sigma, log_snr) in enumerate(zip(sigmas, log_snrs, strict=True))
    ]


def over_batch(
    halves: Sequence[float], videos: int, device: torch.device
) -> float | Tensor:  # (len(halves) * videos, 1, 1)
    """The scales of the halves of a batch, laid over the `videos` in each; one where all agree."""
    import torch

    if len(set(halves)) == 1:
        return halves[0]
    return torch.tensor(halves, device=device).repeat_interleave(videos).view(-1, 1, 1)
