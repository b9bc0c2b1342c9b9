"""Estimates with their intervals: means over seeds, means over prompts and seeds, proportions; and
whether means differ from 0, also where many are asked at once."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import inf, isfinite, nan, sqrt

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

CONFIDENCE = 0.95
ROUNDING = 1e-12  # of a value, which sums in another order may differ by
RESAMPLES = 10_000
DRAWN = 4_000_000  # numbers at once, which bounds the memory of a bootstrap


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
    mean, deviation = _moments(values)
    return student(mean, deviation, len(values))


def student(mean: float, deviation: float, count: int) -> Interval:
    """Student's t interval of a `mean` of `count` values with that standard deviation."""
    from scipy.special import stdtrit  # takes a fifth of a second, and most runs need no interval

    if count == 1:
        return Interval(mean, -inf, inf, count)
    reach = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / sqrt(count)
    return Interval(mean, mean - reach, mean + reach, count)


def by_chance(values: Sequence[float]) -> float:
    """How likely a mean as far from 0 as that of these values is where the truth is 0: Student's t
    test of both sides, as if they were normal. nan of a single value and of values all alike.

    Raises ValueError without values.
    """
    from scipy.special import stdtr

    if not values:
        raise ValueError("expected at least one value")
    mean, deviation = _moments(values)
    if deviation in (0.0, inf):
        return nan
    return float(2 * stdtr(len(values) - 1, -abs(mean) / deviation * sqrt(len(values))))


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation: infinite of one value, and 0 where values are the same but for
    rounding, which is no reason to trust one less. A tenth of what `np.std` takes for a few."""
    found, count = np.asarray(values, np.float64), len(values)
    mean = float(np.add.reduce(found)) / count
    if count == 1:
        return mean, inf
    apart = found - mean
    deviation = sqrt(float(np.add.reduce(apart * apart)) / (count - 1))
    return mean, 0.0 if deviation <= ROUNDING * float(np.abs(found).max()) else deviation


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of several tests, so adjusted that where none has an effect, the least of them is
    below some level no more often than that (https://www.jstor.org/stable/4615733); nan stays."""
    ordered = sorted((p, i) for i, p in enumerate(chances) if p == p)
    adjusted, least = [nan] * len(chances), 0.0
    for rank, (p, i) in enumerate(ordered):
        least = max(least, min(1.0, p * (len(ordered) - rank)))
        adjusted[i] = least
    return adjusted


def cluster_bootstrap(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """The mean, with the percentile interval of a bootstrap that draws whole clusters.

    Values of one cluster, such as videos of one prompt, are alike: drawn one by one they would
    seem to say more than they do. So clusters are drawn with replacement, as many as there are,
    each with all its values, and the mean is over all values drawn. Of a single cluster its values
    are drawn, and the interval speaks of that cluster alone; a single value is unbounded. The same
    values have the same interval each time. (Davison and Hinkley 1997, Bootstrap Methods, 3.8)

    Raises ValueError without values.
    """
    if not values or len(values) != len(clusters):
        raise ValueError("expected at least one value, and a cluster for each")
    if len(values) == 1:
        return Interval(values[0], -inf, inf, 1)
    found: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        found.setdefault(cluster, []).append(value)
    groups = list(found.values()) if len(found) > 1 else [[value] for value in values]
    sums = np.array([sum(group) for group in groups])
    counts = np.array([len(group) for group in groups])
    low, high = np.quantile(_resampled(sums, counts), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), len(values))


def _resampled(sums: NDArray, counts: NDArray) -> NDArray:  # (N,), (N,) -> (RESAMPLES,)
    """Means of values whose N clusters have these sums and counts, each of another draw."""
    rows = max(1, min(RESAMPLES, DRAWN // len(sums)))
    parts = (_times_drawn(len(sums), rows, part) for part in range(-(-RESAMPLES // rows)))
    return np.concatenate([times @ sums / (times @ counts) for times in parts])[:RESAMPLES]


@lru_cache(4)  # values that are compared have the same clusters
def _times_drawn(clusters: int, rows: int, part: int) -> NDArray:  # (rows, clusters)
    """How often each cluster is drawn, in each of so many draws with replacement."""
    drawn = np.random.default_rng((clusters, part)).integers(clusters, size=(rows, clusters))
    drawn += clusters * np.arange(rows)[:, None]
    times = np.bincount(drawn.ravel(), minlength=rows * clusters)
    return times.reshape(rows, clusters).astype(np.float64)


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
