"""What probes found: `probes.json`, and `probes.md` for people."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jtcore.files import write_text
from jtcore.probing.crossed import Crossed, answers, changes, interactions, means
from jtcore.probing.settings import KINDS, Probes
from jtcore.report import markdown_table
from jtcore.run import write_json
from jtcore.structure import unstructure

NAME = "probes.json"
VERSION = 1
INTERVAL = "[95 % interval, bootstrap over the prompts that belong together]"
Row = Mapping[str, Any]


def write(
    crossed: Crossed, probes: Probes, models: Mapping[str, Mapping[str, float]], folder: Path
) -> str:
    """Write both; returns what the second says first, the answers to the questions."""
    table = {
        "version": VERSION,
        "prompts": unstructure(probes.prompts),
        "models": {name: dict(scales) for name, scales in models.items()},
        "questions": answers(crossed, probes.question),
        "means": means(crossed),
        "changes": changes(crossed),
        "interactions": interactions(crossed),
    }
    write_json(folder / NAME, table)
    told = "\n".join(_answers(table))
    write_text(folder / "probes.md", "\n".join([told, *_tables(table)]) + "\n")
    return f"\n{told}\n\n  {folder / 'probes.md'}"


def _answers(table: Mapping[str, Any]) -> Iterator[str]:
    yield "# Probes"
    for question in table["questions"].values():
        of, than = question["prompts"], question["than"]
        yield f"\n## {question['asks']}\n"
        yield f'Prompts of the kind "{of}" against {_other(than)}; {INTERVAL}.\n'
        rows = [
            [row["value"], row["model"], _term(row, "+"), row["answer"]]
            for row in question["answers"]
        ]
        if rows:
            yield from markdown_table(["metric", "model", "difference", "answer"], rows)
        else:
            yield "None of its metrics was measured."


def _other(than: str) -> str:
    return f'those of "{than}", same model' if than in KINDS else "the base model on the same"


def _tables(table: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## both - subject - motion + neither\n\nOf prompts, by model; {INTERVAL}.\n"
    yield from _across(_of(table, "prompts"), "model", list(table["models"]))
    if by_adapter := _of(table, "adapters"):
        yield f"\nOf the two adapters, by prompts; {INTERVAL}.\n"
        yield from _across(by_adapter, "prompts", KINDS)
    yield f"\n## Change from the base model\n\nSame prompts, same noise; {INTERVAL}."
    for model in list(table["models"])[1:]:
        yield f"\n{model}:\n"
        own = [row for row in table["changes"] if row["model"] == model]
        yield from _across(own, "prompts", KINDS)
    yield f"\n## Means\n\n{INTERVAL}."
    for model in table["models"]:
        yield f"\n{model}:\n"
        own = [row for row in table["means"] if row["model"] == model]
        yield from _across(own, "prompts", KINDS, "")


def _of(table: Mapping[str, Any], what: str) -> list[Row]:
    return [row for row in table["interactions"] if row["of"] == what]


def _across(
    rows: Sequence[Row], key: str, columns: Sequence[str], sign: str = "+"
) -> Iterator[str]:
    """A line for each value, a column for each that `key` may be."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["value"], {})[row[key]] = _term(row, sign)
    lines = [[name, *(cells.get(each, "") for each in columns)] for name, cells in found.items()]
    yield from markdown_table(["metric", *columns], lines)


def _term(row: Row, sign: str) -> str:
    reach = "" if row["low"] is None else f" [{row['low']:{sign}.4f}, {row['high']:{sign}.4f}]"
    return f"{row['estimate']:{sign}.4f}{reach} n={row['videos']}"
