"""Intervals hold the truth as often as they say, and agree with published values."""

from math import comb, inf

import numpy as np
import pytest

from jtcore.statistics import Interval, by_chance, holm, mean_interval, wilson


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_a_mean_has_students_interval():
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])

    assert (found.estimate, found.count) == (3.0, 5)
    assert found.high - 3 == pytest.approx(2.776445 * (2.5 / 5) ** 0.5, rel=1e-6)  # t table, 4 df
    assert found.low + found.high == pytest.approx(6.0)


def test_one_value_bounds_nothing():
    assert mean_interval([0.25]) == Interval(0.25, -inf, inf, 1)
    assert not mean_interval([0.25]).is_bounded


def test_equal_values_leave_no_doubt():
    assert mean_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)


def test_what_is_no_number_stays_so():
    found = mean_interval([0.5, float("nan")])
    assert np.isnan([found.estimate, found.low, found.high]).all() and not found.is_bounded


def test_no_value_has_no_mean():
    with pytest.raises(ValueError, match=r"^expected at least one value$"):
        mean_interval([])


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [  # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_a_proportion_has_wilsons_interval(successes, count, low, high):
    found = wilson(successes, count)

    assert found.estimate == successes / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 4)])
def test_what_is_no_proportion_is_refused(successes, count):
    with pytest.raises(ValueError, match=r"^expected 0 <= successes <= count, got "):
        wilson(successes, count)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_students_interval_holds_the_mean_in_95_of_100_repetitions(count):
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, count))
    held = np.mean([covers(mean_interval(list(values)), 3.0) for values in draws])

    assert held == pytest.approx(0.95, abs=0.012)  # three and a half standard errors


def test_wilsons_interval_holds_proportions_in_95_of_100_repetitions_on_average():
    count = 16
    intervals = [wilson(k, count) for k in range(count + 1)]
    held = [
        sum(
            comb(count, k) * p**k * (1 - p) ** (count - k)
            for k, interval in enumerate(intervals)
            if covers(interval, p)
        )
        for p in np.linspace(0.02, 0.98, 97)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
    assert min(held) > 0.83


def test_a_mean_is_told_from_0_as_scipy_tells_it():
    from scipy.stats import ttest_1samp

    values = [0.3, -0.1, 0.4, 0.2]

    assert by_chance(values) == pytest.approx(ttest_1samp(values, 0).pvalue, rel=1e-12)
    assert np.isnan([by_chance([0.3]), by_chance([0.3, 0.3, 0.3])]).all()


def test_rounding_is_no_spread():
    values = [0.1 + 0.2, 0.3, 0.3]

    assert mean_interval(values).low == mean_interval(values).high
    assert np.isnan(by_chance(values))


def test_chances_of_several_tests_are_adjusted_as_holm_has_it():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1, and none below the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.4, float("nan"), 0.6])[::2] == [0.8, 0.8]
    assert np.isnan(holm([0.4, float("nan")])[1])
    assert holm([]) == []


def test_holm_tells_something_of_nothing_no_more_often_than_a_single_test():
    chances = np.random.default_rng(0).random((20_000, 8))
    wrong = np.mean([min(holm(row)) < 0.05 for row in chances.tolist()])

    assert wrong == pytest.approx(0.05, abs=0.005)
