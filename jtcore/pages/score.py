"""What raters said of a blind comparison: who won how often, and how far raters agree."""

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from attrs import frozen

from jtcore.errors import JtError
from jtcore.files import sha256
from jtcore.pages.rows import aligned
from jtcore.run import read_json
from jtcore.statistics import wilson

CHOICES = ("left", "right", "equal")
TIE = None


@frozen
class Judgement:
    """One rater's answer to one question about one pair."""

    rater: str
    trial: str
    question: str
    methods: tuple[str, str]  # in the key's order
    winner: str | None  # None: both are equal
    choice: str


def score(answers: Sequence[Path], key: Path) -> dict[str, Any]:
    """Win rates and agreement, as JSON. Raises JtError where a file is not of the key's study."""
    told = _read_key(key)
    judgements = [each for path in answers for each in _judgements(path, told)]
    if double := _twice(judgements):
        raise JtError(
            f"{rater}: two files have answers of this rater to {trial}, {question}; keep one"
            for rater, trial, question in double
        )
    if not judgements:
        raise JtError(f"{answers[0]}: has no answers")
    return {
        "version": 1,
        "study": told["study"],
        "key": {"file": str(key), "sha256": sha256(key)},
        "raters": _counts(judgements, "rater"),
        "results": list(_results(judgements, told)),
        "agreement": list(_agreement(judgements, told)),
        "left": _rate(Counter(each.choice for each in judgements), "left", "right"),
    }


def alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha of nominal values, of which each unit has those of its raters: 1 is
    agreement, 0 is chance. None where there is nothing to tell apart.

    (Krippendorff 2011, https://repository.upenn.edu/asc_papers/43)
    """
    units = [unit for unit in units if len(unit) > 1]
    count = sum(map(len, units))
    differing = sum(
        sum(a != b for a, b in combinations(unit, 2)) * 2 / (len(unit) - 1) for unit in units
    )
    totals = Counter(value for unit in units for value in unit)
    by_chance = count**2 - sum(n**2 for n in totals.values())
    return 1 - (count - 1) * differing / by_chance if by_chance else None


def told(scores: Mapping[str, Any]) -> Iterator[str]:
    """What `score` found, for a terminal."""
    raters = scores["raters"]
    yield f"study {scores['study']}: {sum(raters.values())} answers of {len(raters)} raters"
    yield ""
    header = ["question", "methods", "won", "equal", "lost", "win rate", "of pairs, by majority"]
    yield from aligned(header, [_result_row(each) for each in scores["results"]])
    yield ""
    header = ["question", "pairs of several raters", "same answer", "Krippendorff's alpha"]
    yield from aligned(header, [_agreement_row(each) for each in scores["agreement"]])
    yield ""
    yield f"left was chosen {_shown(scores['left'])}; far from 0.5, raters favour a side"


def _result_row(each: Mapping[str, Any]) -> list[str]:
    counts = [str(each[name]) for name in ("wins", "ties", "losses")]
    methods = f"{each['one']} over {each['other']}"
    return [each["question"], methods, *counts, _shown(each), _shown(each["majority"])]


def _agreement_row(each: Mapping[str, Any]) -> list[str]:
    same, found = ("" if each[name] is None else f"{each[name]:.2f}" for name in ("same", "alpha"))
    return [each["question"], str(each["pairs"]), same, found]


def _shown(rate: Mapping[str, Any]) -> str:
    if rate["win_rate"] is None:
        return "undecided"
    return f"{rate['win_rate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"


def _results(judgements: Sequence[Judgement], key: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each question and two methods: over all answers, and over pairs by their majority."""
    for question in key["questions"]:
        for one, other in combinations(key["methods"], 2):
            own = [
                each
                for each in judgements
                if each.question == question and each.methods == (one, other)
            ]
            if own:
                majority = Counter(_majority(winners) for winners in _by_trial(own).values())
                yield {
                    "question": question,
                    "one": one,
                    "other": other,
                    **_rate(Counter(each.winner for each in own), one, other),
                    "majority": _rate(majority, one, other),
                }


def _rate(counts: Mapping[Hashable, int], one: str, other: str) -> dict[str, Any]:
    """How often the one of two wins where either does, with Wilson's interval."""
    wins, losses = counts[one], counts[other]
    found = wilson(wins, wins + losses) if wins + losses else None
    return {
        "wins": wins,
        "ties": sum(counts.values()) - wins - losses,
        "losses": losses,
        "win_rate": found and found.estimate,
        "low": found and found.low,
        "high": found and found.high,
    }


def _agreement(judgements: Sequence[Judgement], key: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each question, over pairs that several raters have seen: how often two raters say the
    same, and Krippendorff's alpha. A value is whether the first of two methods wins."""
    for question in key["questions"]:
        own = [each for each in judgements if each.question == question]
        units = [
            [None if each.winner is TIE else each.winner == each.methods[0] for each in of_trial]
            for of_trial in _grouped(own).values()
            if len(of_trial) > 1
        ]
        same = [fmean(a == b for a, b in combinations(unit, 2)) for unit in units]
        yield {
            "question": question,
            "pairs": len(units),
            "same": fmean(same) if same else None,
            "alpha": alpha(units),
        }


def _grouped(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for each in judgements:
        found.setdefault(each.trial, []).append(each)
    return found


def _by_trial(judgements: Sequence[Judgement]) -> dict[str, list[str | None]]:
    return {trial: [e.winner for e in own] for trial, own in _grouped(judgements).items()}


def _majority(winners: Sequence[str | None]) -> str | None:
    """Who wins more often than the other; None where neither does."""
    counts = Counter(winner for winner in winners if winner is not TIE).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return TIE
    return counts[0][0]


def _twice(judgements: Sequence[Judgement]) -> list[tuple[str, str, str]]:
    counts = Counter((each.rater, each.trial, each.question) for each in judgements)
    return [answered for answered, count in counts.items() if count > 1][:1]


def _counts(judgements: Sequence[Judgement], name: str) -> dict[str, int]:
    return dict(Counter(getattr(each, name) for each in judgements))


def _read_key(path: Path) -> dict[str, Any]:
    key = read_json(path)
    if not isinstance(key, dict) or not {"study", "methods", "trials", "questions"} <= key.keys():
        raise JtError(f"{path}: is not the key of a study; expected the key.json of jt-study")
    return key


def _judgements(path: Path, key: Mapping[str, Any]) -> Iterator[Judgement]:
    """The answers of one file. Raises JtError."""
    file = read_json(path)
    if not isinstance(file, dict) or not isinstance(file.get("answers"), list):
        raise JtError(f"{path}: has no answers of a study; expected what its page has saved")
    if (study := _word(file, "study")) != key["study"]:
        raise JtError(f"{path}: is of study {study!r}, and the key of {key['study']!r}")
    for number, answer in enumerate(file["answers"]):
        place = f"{path}: answers[{number}]"
        asked, question, choice = (_word(answer, name) for name in ("trial", "question", "choice"))
        if asked not in key["trials"] or question not in key["questions"]:
            raise JtError(f"{place}: the study has no such pair or question")
        if choice not in CHOICES:
            raise JtError(f"{place}: choice: expected one of {', '.join(CHOICES)}")
        trial = key["trials"][asked]
        sides = {side: trial[side]["method"] for side in ("left", "right")}
        yield Judgement(
            rater=_word(file, "rater"),
            trial=asked,
            question=question,
            methods=tuple(sorted(sides.values(), key=key["methods"].index)),
            winner=sides.get(choice, TIE),
            choice=choice,
        )


def _word(answer: Any, name: str) -> str:
    """What a file says, which may be anything."""
    found = answer.get(name) if isinstance(answer, dict) else None
    return found if isinstance(found, str) else ""


def command(answers: Sequence[Path], key: Path, as_json: bool) -> str:
    """What `jt-study --score` prints."""
    scores = score(answers, key)
    return json.dumps(scores, indent=2) if as_json else "\n".join(told(scores))
