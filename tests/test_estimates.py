"""Means over prompts and seeds, and models compared pair by pair, against other computations."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from jtcore import statistics
from jtcore.evaluation.estimates import Row, average_score, compare, summarise
from jtcore.statistics import Interval, cluster_bootstrap

PROMPTS = [f"prompt {number}" for number in range(12)]


def values(count: int, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).gamma(2.0, 1.0, count))


def rows(model: str, found: list[float], seeds: int = 1, name: str = "m.v") -> list[Row]:
    """Prompt by prompt, each with so many seeds."""
    asked = [(prompt, seed) for prompt in PROMPTS for seed in range(seeds)]
    return [Row(model, *each, {name: v}) for each, v in zip(asked, found, strict=False)]


def test_one_value_a_cluster_has_scipys_interval():
    found = cluster_bootstrap(drawn := values(40), range(40))

    other = stats.bootstrap(
        (np.array(drawn),), np.mean, n_resamples=40_000, method="percentile", rng=1
    ).confidence_interval
    assert found.estimate == pytest.approx(np.mean(drawn), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.03)
    assert found.count == 40


def test_clusters_are_drawn_whole_as_all_27_draws_of_three_say():
    clusters = {"a": [1.0, 2.0, 9.0], "b": [3.0], "c": [5.0, 7.0]}
    means = [
        np.mean([value for name in drawn for value in clusters[name]])
        for drawn in product("abc", repeat=3)
    ]
    exact = np.quantile(means, [0.025, 0.975], method="inverted_cdf")

    pairs = [(value, name) for name, held in clusters.items() for value in held]
    found = cluster_bootstrap(*zip(*pairs, strict=True))

    assert found.estimate == pytest.approx(27 / 6)
    assert (found.low, found.high) == pytest.approx(tuple(exact), abs=1e-12)


def test_seeds_of_a_prompt_that_are_alike_say_little_more_than_one():
    once = values(12)
    four = [value for value in once for _ in range(4)]
    prompts = [number for number in range(12) for _ in range(4)]

    one, whole = cluster_bootstrap(once, range(12)), cluster_bootstrap(four, prompts)
    apart = cluster_bootstrap(four, range(48))

    assert (whole.low, whole.high) == pytest.approx((one.low, one.high), abs=1e-12)
    assert apart.high - apart.low < 0.6 * (whole.high - whole.low)


def test_of_one_prompt_its_seeds_are_drawn_and_one_value_is_unbounded():
    drawn = values(8)

    assert cluster_bootstrap(drawn, ["the same"] * 8) == cluster_bootstrap(drawn, range(8))
    assert cluster_bootstrap([0.5], ["a"]) == Interval(0.5, -np.inf, np.inf, 1)


def test_the_same_values_have_the_same_interval_each_time():
    first = cluster_bootstrap(values(30), range(30))
    statistics._times_drawn.cache_clear()
    assert cluster_bootstrap(values(30), range(30)) == first


def test_draws_that_do_not_fit_at_once_say_the_same(monkeypatch):
    drawn = values(60)
    whole = cluster_bootstrap(drawn, range(60))
    monkeypatch.setattr(statistics, "DRAWN", 60 * 999)

    assert statistics._times_drawn.cache_info().maxsize == 4
    parted = cluster_bootstrap(drawn, range(60))
    assert (parted.low, parted.high) == pytest.approx((whole.low, whole.high), abs=0.03)
    assert len(statistics._resampled(np.ones(60), np.ones(60))) == statistics.RESAMPLES


@pytest.mark.parametrize(("drawn", "clusters"), [([], []), ([1.0, 2.0], ["a"])])
def test_values_need_clusters(drawn, clusters):
    with pytest.raises(ValueError, match=r"^expected at least one value, and a cluster for each$"):
        cluster_bootstrap(drawn, clusters)


def test_a_summary_counts_what_has_a_value():
    asked = [*rows("base", [1.0, 2.0, 6.0, 3.0], seeds=2), Row("base", "prompt 9", 0, {})]

    found = summarise([*asked, Row("other", "p", 0, {"m.v": 4.0})])

    expected = cluster_bootstrap([1.0, 2.0, 6.0, 3.0], [0, 0, 1, 1])
    assert found["base"]["m.v"] == {
        "mean": 3.0,
        "low": expected.low,
        "high": expected.high,
        "videos": 4,
        "prompts": 2,
    }
    assert found["other"]["m.v"] == {
        "mean": 4.0,
        "low": None,
        "high": None,
        "videos": 1,
        "prompts": 1,
    }


def test_pairs_are_of_the_same_prompt_and_seed_and_have_scipys_interval():
    one, other = values(12, 1), values(12, 2)
    shuffled = list(np.random.default_rng(5).permutation(rows("other", other)))
    alone = Row("one", "asked of one alone", 0, {"m.v": 100.0})

    (found,) = compare([*shuffled, *rows("one", one), alone], {"m.v": "higher"})

    interval = stats.bootstrap(
        (np.array(one), np.array(other)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        n_resamples=40_000,
        paired=True,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert (found["value"], found["one"], found["other"]) == ("m.v", "one", "other")
    assert found["difference"] == pytest.approx(np.mean(one) - np.mean(other))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=0.05)
    assert found["pairs"] == 12
    assert found["wins"] == sum(a > b for a, b in zip(one, other, strict=True))


def test_who_wins_depends_on_what_is_better_and_a_tie_is_half():
    both = [*rows("other", [1.0, 2.0, 3.0, 4.0]), *rows("one", [2.0, 2.0, 5.0, 1.0])]

    for better, wins, losses in (("higher", 2, 1), (None, 2, 1), ("lower", 1, 2)):
        (found,) = compare(both, {"m.v": better})
        assert (found["wins"], found["ties"], found["losses"]) == (wins, 1, losses)
        assert found["win_rate"] == (wins + 0.5) / 4
        assert found["difference"] == 0.0  # one - other, whichever is better


def test_every_two_models_are_compared_the_later_with_the_earlier():
    three = [row for name in ("base", "a", "b") for row in rows(name, values(12))]
    found = [(each["one"], each["other"]) for each in compare(three, {})]
    assert found == [("a", "base"), ("b", "base"), ("b", "a")]


def test_an_average_score_needs_all_its_numbers():
    summary = {
        "whole": {"a.x": {"mean": 0.5}, "b.y": {"mean": 20.0}},
        "part": {"a.x": {"mean": 0.5}},
    }
    assert average_score(summary, {"a.x": 100, "b.y": 1}) == {"whole": 35.0, "part": None}
