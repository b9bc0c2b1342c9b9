"""What the values of many videos say: means of models, and models compared pair by pair."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import isclose
from typing import Any

from attrs import frozen

from jtcore.statistics import Interval, cluster_bootstrap

Better = str | None  # "higher", "lower", or neither
Table = dict[str, Any]  # as evaluation.json has it


@frozen
class Row:
    """One video, and what it was found to be, by NAME.VALUE."""

    model: str
    prompt: str
    seed: int
    values: Mapping[str, float]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Table]]:
    """By model and value: the mean over its videos, and the interval of a bootstrap over prompts
    (`cluster_bootstrap`)."""
    summary: dict[str, dict[str, Table]] = {}
    for model in _distinct(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        summary[model] = {
            name: _estimate([row for row in own if name in row.values], name)
            for name in _distinct(name for row in own for name in row.values)
        }
    return summary


def compare(rows: Sequence[Row], better: Mapping[str, Better]) -> list[Table]:
    """Every two models on the prompts and seeds that both have: the mean of differences, its
    interval of a bootstrap over prompts, and how often the one wins. `better` is by NAME.VALUE."""
    found = []
    for other, one in combinations(_distinct(row.model for row in rows), 2):
        pairs = list(_pairs(rows, one, other))
        for name in _distinct(name for first, _ in pairs for name in first.values):
            both = [(a, b) for a, b in pairs if name in a.values and name in b.values]
            if both:
                told = {"value": name, "one": one, "other": other}
                found.append(told | _comparison(both, name, better.get(name)))
    return found


def average_score(
    summary: Mapping[str, Mapping[str, Table]], factors: Mapping[str, float]
) -> dict[str, float | None]:
    """By model: the plain mean of means times their factors; None where one of them is missing."""
    return {
        model: sum(values[name]["mean"] * factor for name, factor in factors.items()) / len(factors)
        if factors.keys() <= values.keys()
        else None
        for model, values in summary.items()
    }


def _estimate(rows: Sequence[Row], name: str) -> Table:
    prompts = [row.prompt for row in rows]
    found = cluster_bootstrap([row.values[name] for row in rows], prompts)
    return {
        "mean": found.estimate,
        **_bounds(found),
        "videos": len(rows),
        "prompts": len(set(prompts)),
    }


def _comparison(pairs: Sequence[tuple[Row, Row]], name: str, better: Better) -> Table:
    """Where neither is better, the one wins where it is higher."""
    prompts = [one.prompt for one, _ in pairs]
    differences = [one.values[name] - other.values[name] for one, other in pairs]
    sign = -1 if better == "lower" else 1
    scores = [_score(sign * difference) for difference in differences]
    found, rate = (cluster_bootstrap(each, prompts) for each in (differences, scores))
    rates = {f"win_rate_{key}": bound for key, bound in _bounds(rate).items()}
    return {
        "difference": found.estimate,
        **_bounds(found),
        "wins": scores.count(1.0),
        "ties": scores.count(0.5),
        "losses": scores.count(0.0),
        "pairs": len(pairs),
        "win_rate": rate.estimate,
        **rates,
    }


def _score(difference: float) -> float:
    """1 of a pair that is won, 0.5 of a tie."""
    if isclose(difference, 0, abs_tol=1e-12):
        return 0.5
    return 1.0 if difference > 0 else 0.0


def _bounds(found: Interval) -> dict[str, float | None]:
    """None where there are none."""
    if not found.is_bounded:
        return {"low": None, "high": None}
    return {"low": found.low, "high": found.high}


def _pairs(rows: Sequence[Row], one: str, other: str) -> Iterator[tuple[Row, Row]]:
    """Rows of two models that were asked the same."""
    asked = {(row.prompt, row.seed): row for row in rows if row.model == other}
    for row in rows:
        if row.model == one and (row.prompt, row.seed) in asked:
            yield row, asked[row.prompt, row.seed]


def _distinct(names) -> list[str]:
    return list(dict.fromkeys(names))
