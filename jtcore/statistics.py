"""Estimates with their intervals: means over seeds, proportions."""

from collections.abc import Sequence
from math import inf, isfinite, sqrt

import numpy as np
from attrs import frozen

CONFIDENCE = 0.95


@frozen
class Interval:
    """An estimate, and the bounds that hold the truth in `CONFIDENCE` of all repetitions."""

    estimate: float
    low: float
    high: float
    count: int  # of the values it stands on

    @property
    def is_bounded(self) -> bool:
        return isfinite(self.low) and isfinite(self.high)


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean, with Student's t interval, as if the values were normal; of one value, unbounded.

    Raises ValueError without values.
    """
    if not values:
        raise ValueError("expected at least one value")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else inf
    return student(float(np.mean(values)), deviation, len(values))


def student(mean: float, deviation: float, count: int) -> Interval:
    """Student's t interval of a `mean` of `count` values with that standard deviation."""
    from scipy.special import stdtrit  # takes a fifth of a second, and most runs need no interval

    if count == 1:
        return Interval(mean, -inf, inf, count)
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / sqrt(count)
    return Interval(mean, mean - reach, mean + reach, count)


def wilson(successes: int, count: int) -> Interval:
    """The proportion `successes` / `count`, with Wilson's score interval.

    (https://doi.org/10.1080/01621459.1927.10502953) Raises ValueError where there is no such
    proportion.
    """
    if not 0 <= successes <= count or not count:
        raise ValueError(f"expected 0 <= successes <= count, got {successes} of {count}")
    from scipy.special import ndtri

    p, z2 = successes / count, float(ndtri((1 + CONFIDENCE) / 2)) ** 2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    reach = sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return Interval(p, max(0.0, centre - reach), min(1.0, centre + reach), count)
