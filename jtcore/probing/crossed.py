"""Cross terms: what models and kinds of prompts do to each other, with intervals.

All are means of differences between videos of one seed, so with the same noise, and of prompts
that belong together; intervals are of a bootstrap over these prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen

from jtcore.probing.settings import KINDS, Kind, Question
from jtcore.statistics import Interval, cluster_bootstrap

BASE, ADAPTED, WITHOUT = "base", "adapted", "without-"

Cell = tuple[str, Kind]  # a model, and a kind of prompt
Table = dict[str, Any]


@frozen
class Found:
    """What was measured of one video"""

    model: str
    kind: Kind
    index: int  # of the prompt among those of its kind: the same index belongs together
    seed: int
    values: Mapping[str, float]  # by NAME.VALUE


class Crossed:
    """All that was measured, by cell."""

    def __init__(self, found: Sequence[Found]):
        self.models = list(dict.fromkeys(each.model for each in found))
        self.values = list(dict.fromkeys(name for each in found for name in each.values))
        self._cells: dict[Cell, dict[tuple[int, int], Mapping[str, float]]] = {}
        for each in found:
            self._cells.setdefault((each.model, each.kind), {})[each.index, each.seed] = each.values

    def term(self, name: str, signs: Mapping[Cell, int]) -> Table | None:
        """The mean of a sum over cells with their signs, of what all of them have; None where that
        is nothing."""
        cells = [self._cells.get(cell, {}) for cell in signs]
        shared = [at for at in cells[0] if all(name in cell.get(at, {}) for cell in cells)]
        if not shared:
            return None
        sums = [
            sum(sign * cell[at][name] for sign, cell in zip(signs.values(), cells, strict=True))
            for at in shared
        ]
        return _told(cluster_bootstrap(sums, [index for index, _ in shared]))


def means(crossed: Crossed) -> list[Table]:
    """Of every cell."""
    return [
        {"value": name, "model": model, "prompts": kind, **term}
        for name in crossed.values
        for model in crossed.models
        for kind in KINDS
        if (term := crossed.term(name, {(model, kind): 1}))
    ]


def changes(crossed: Crossed) -> list[Table]:
    """What each model does to each kind of prompts, held against the base model."""
    return [
        {"value": name, "model": model, "prompts": kind, **term}
        for name in crossed.values
        for model in crossed.models
        if model != BASE
        for kind in KINDS
        if (term := crossed.term(name, {(model, kind): 1, (BASE, kind): -1}))
    ]


def interactions(crossed: Crossed) -> list[Table]:
    """both - subject - motion + neither: of the prompts of each model, and of the two adapters,
    where there are two, on each kind of prompts."""
    return [*_of_prompts(crossed), *_of_adapters(crossed)]


def _of_prompts(crossed: Crossed) -> Iterator[Table]:
    for name in crossed.values:
        for model in crossed.models:
            signs = {(model, "both"): 1, (model, "subject"): -1, (model, "motion"): -1}
            if term := crossed.term(name, signs | {(model, "neither"): 1}):
                yield {"of": "prompts", "value": name, "model": model, **term}


def _of_adapters(crossed: Crossed) -> Iterator[Table]:
    """Without the one is with the other alone."""
    single = [model for model in crossed.models if model.startswith(WITHOUT)]
    if len(single) != 2:
        return
    for name in crossed.values:
        for kind in KINDS:
            signs = {(ADAPTED, kind): 1, **{(model, kind): -1 for model in single}, (BASE, kind): 1}
            if term := crossed.term(name, signs):
                yield {"of": "adapters", "value": name, "prompts": kind, **term}


def answers(crossed: Crossed, questions: Mapping[str, Question]) -> dict[str, Table]:
    """By question, for every model and value that it is about: the difference, and "yes" or "no"
    where its interval lies on one side of 0, else "not shown"."""
    return {
        name: {
            "asks": question.asks,
            "prompts": question.prompts,
            "than": question.than or BASE,
            "yes": question.yes,
            "answers": list(_answers(crossed, question)),
        }
        for name, question in questions.items()
    }


def _answers(crossed: Crossed, question: Question) -> Iterator[Table]:
    for name in crossed.values:
        if not any(fnmatchcase(name, pattern) for pattern in question.values):
            continue
        for model in crossed.models:
            if model == BASE:
                continue
            other = (model, question.than) if question.than else (BASE, question.prompts)
            if term := crossed.term(name, {(model, question.prompts): 1, other: -1}):
                yield {
                    "value": name,
                    "model": model,
                    **term,
                    "answer": _answer(term, question.yes),
                }


def _answer(term: Table, yes: str) -> str:
    low, high = term["low"], term["high"]
    if low is None or low <= 0 <= high:
        return "not shown"
    return "yes" if (low > 0) == (yes == "above") else "no, the opposite"


def _told(found: Interval) -> Table:
    low, high = (found.low, found.high) if found.is_bounded else (None, None)
    return {"estimate": found.estimate, "low": low, "high": high, "videos": found.count}
