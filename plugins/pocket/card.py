"""The model card: what pocket was trained on, with which compute, and how it does its exam."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from jtcore.errors import JtError
from jtcore.report import markdown_table
from jtcore.statistics import Interval

from .exam import JITTER, Result, exam
from .models import load, sample
from .software import python, versions

SAMPLING = ("steps", "guidance")  # options of `sample`, at their defaults here


@frozen
class Card:
    """What an examination found"""

    text: str  # Markdown
    missed: tuple[Result, ...]  # that do not reach their bars


def make_card(folder: Path, videos: int, seed: int, report: Callable[[str], None]) -> Card:
    """Examine the model in `folder`, telling `report` of each topic. Raises JtError."""
    facts = _read_facts(folder)
    origin, curve = _said(folder, facts)
    results = list(exam(load(folder), videos, seed, report))
    text = "\n".join((*origin, *_exam(results, videos, seed), *curve)) + "\n"
    return Card(text, tuple(filter(missed, results)))


def missed(result: Result) -> bool:
    """Whether the estimate does not reach its bar."""
    if result.bar is None:
        return False
    found = result.generated.estimate
    return not (found <= result.bar if result.question == JITTER else found >= result.bar)


def _read_facts(folder: Path) -> Mapping[str, Any]:
    try:
        return json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        told = "no pretraining.json; expected what jt-pocket pretrain wrote"
        raise JtError(f"{folder}: {told}") from None
    except ValueError as error:  # besides JSONDecodeError: not UTF-8
        raise JtError(f"{folder / 'pretraining.json'}: not JSON: {error}") from None


def _said(folder: Path, facts: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How the model was made, and its loss while it was. Raises JtError."""
    try:
        return list(_origin(facts)), list(_curve(facts))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"not what jt-pocket pretrain writes ({type(error).__name__}: {error})"
        raise JtError(f"{folder / 'pretraining.json'}: {told}; pretrain again") from None


def _origin(facts: Mapping[str, Any]) -> Iterator[str]:
    spent, sizes = facts["spent"], facts["parameters"]
    yield "# Pocket: model card\n"
    yield "Written by `jt-pocket card`; what the model is for, and its world: docs/pocket.md.\n"
    rows = {
        "networks": f"transformer {sizes['transformer']:,}, text encoder {sizes['text_encoder']:,}",
        "data": "clips of the procedurally drawn world, each drawn once; no other data",
        "steps": f"{facts['steps']:,}, seed {facts['seed']}",
        "compute": f"{spent['cpu_seconds']:,.0f} CPU-seconds in {spent['seconds']:,.0f} seconds, "
        + _threads(facts["threads"]),
        "versions": _software(facts["python"], facts["versions"]),
        "final loss": ", ".join(f"{kind} {loss:.4f}" for kind, loss in facts["losses"].items()),
    }
    yield from markdown_table(("", ""), [[name, text] for name, text in rows.items()])


def _exam(results: Sequence[Result], videos: int, seed: int) -> Iterator[str]:
    yield "\n## Exam\n"
    steps, guidance = (signature(sample).parameters[name].default for name in SAMPLING)
    ran = f"{_software(python(), versions())}, {_threads(torch.get_num_threads())}"
    yield f"{datetime.now(UTC).date()}, {ran}.\n"
    yield (
        f"{videos} videos for each kind of prompt (seed {seed}, {steps} steps, guidance "
        f"{guidance:g}), beside true clips through the codec. Intervals are 95 %: Wilson's for "
        "rates, Student's for means. Where nothing was asked of a base there is no bar. Sprites: "
        "how many different ones the prompts ask for.\n"
    )
    header = (
        "prompts",
        "question",
        "sprites",
        "videos",
        "codec",
        "generated",
        "interval",
        "bar",
        "",
    )
    yield from markdown_table(header, [_row(result) for result in results])


def _software(python: str, versions: Mapping[str, str]) -> str:
    named = {"Python": python, **versions}
    return ", ".join(f"{name} {number}" for name, number in named.items())


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _row(result: Result) -> list[str]:
    found = result.generated
    return [
        result.topic,
        result.question,
        str(result.sprites),
        str(found.count),
        f"{result.real:.2f}",
        f"{found.estimate:.2f}",
        _span(found),
        "" if result.bar is None else f"{result.bar:.2f}",
        "missed" if missed(result) else "",
    ]


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
