"""The model card: what pocket was trained on, with which compute, and how it does its exam."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jtcore.errors import JtError
from jtcore.report import markdown_table
from jtcore.statistics import Interval

from .exam import Result, exam
from .models import load

FROM_ABOVE = {"jitter, px"}
BARS = {  # what a base must reach, by question
    "colour": 0.95,
    "background": 0.95,
    "shape": 0.95,
    "creature": 0.95,
    "direction": 0.95,
    "named motion": 0.95,
    "one object, of frames": 0.95,
    "jitter, px": 0.5,
}
UNSEEN = 0.8  # of the rate for what was seen; and the shape's bar without place words
HARDER = ("never seen", "held-out", "unsaid")  # in the topics' names


def write_card(folder: Path, videos: int, seed: int) -> str:
    """Examine the model in `folder`; returns the card as Markdown."""
    facts = _read_facts(folder)
    results = list(exam(load(folder), videos, seed))
    return "\n".join((*_origin(facts), *_exam(results, videos, seed), *_curve(facts))) + "\n"


def missed(result: Result) -> bool:
    """Whether the estimate does not reach its bar."""
    found, bar = result.generated.estimate, _bar(result)
    return found > bar if result.question in FROM_ABOVE else found < bar


def _read_facts(folder: Path) -> Mapping[str, Any]:
    try:
        return json.loads((folder / "pretraining.json").read_text())
    except FileNotFoundError:
        told = "no pretraining.json; expected what jt-pocket pretrain wrote"
        raise JtError(f"{folder}: {told}") from None


def _origin(facts: Mapping[str, Any]) -> Iterator[str]:
    spent, sizes = facts["spent"], facts["parameters"]
    versions = {"Python": facts["python"], **facts["versions"]}
    yield "# Pocket: model card\n"
    yield "Written by `jt-pocket card`; what the model is for, and its world: docs/pocket.md.\n"
    rows = {
        "networks": f"transformer {sizes['transformer']:,}, text encoder {sizes['text_encoder']:,}",
        "data": "clips of the procedurally drawn world, each drawn once; no other data",
        "steps": f"{facts['steps']:,}, seed {facts['seed']}",
        "compute": f"{spent['cpu_seconds']:,.0f} CPU-seconds in {spent['seconds']:,.0f} seconds, "
        f"{facts['threads']} threads",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "final loss": ", ".join(f"{kind} {loss:.4f}" for kind, loss in facts["losses"].items()),
    }
    yield from markdown_table(("", ""), [[name, text] for name, text in rows.items()])


def _exam(results: Sequence[Result], videos: int, seed: int) -> Iterator[str]:
    yield "\n## Exam\n"
    yield (
        f"{videos} videos for each kind of prompt (seed {seed}, 10 steps, guidance 2), beside true "
        "clips through the codec. Intervals are 95 %: Wilson's for rates, Student's for means.\n"
    )
    header = ("prompts", "question", "videos", "codec", "generated", "interval", "bar", "")
    yield from markdown_table(header, [_row(result) for result in results])


def _row(result: Result) -> list[str]:
    found = result.generated
    return [
        result.topic,
        result.question,
        str(found.count),
        f"{result.real:.2f}",
        f"{found.estimate:.2f}",
        _span(found),
        f"{_bar(result):.2f}",
        "missed" if missed(result) else "",
    ]


def _bar(result: Result) -> float:
    harder = any(word in result.topic for word in HARDER) and result.question not in FROM_ABOVE
    return UNSEEN if harder else BARS[result.question]


def _span(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}" if interval.is_bounded else ""


def _curve(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "\n## Loss while it was trained\n"
    yield "Mean squared error of v, mean over the steps since the row above.\n"
    kinds = sorted({kind for row in facts["curve"] for kind in row["losses"]})
    rows = [
        [f"{row['step']:,}", *(_loss(row["losses"].get(kind)) for kind in kinds)]
        for row in facts["curve"]
    ]
    yield from markdown_table(("step", *kinds), rows)


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
