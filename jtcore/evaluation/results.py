"""What an evaluation found: `evaluation.json`, `evaluation.csv`, and a table for people."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from jtcore.evaluation.estimates import Row, average_score, compare, summarise
from jtcore.evaluation.measuring import Measured, Video
from jtcore.files import write_text
from jtcore.pages.rows import aligned
from jtcore.run import write_json

NAME = "evaluation.json"
VERSION = 1
MIXED = "the plain mean of numbers of different scales: whichever varies most decides it"


@frozen(eq=False)
class Evaluation:
    """Videos, and what each metric says of them."""

    title: str
    videos: Sequence[Video]
    metrics: Mapping[str, Measured]
    references: Mapping[str, Sequence[str]]  # absolute paths
    recipe: str | None = None
    average_of: Mapping[str, float] = field(factory=dict)  # factors of NAME.VALUE

    @property
    def rows(self) -> list[Row]:
        """What was found of each video, by NAME.VALUE."""
        return [
            Row(video.model, video.prompt, video.seed, self._values(index))
            for index, video in enumerate(self.videos)
        ]

    @property
    def missing(self) -> dict[str, str]:
        """Why metrics could not be asked, by name."""
        return {name: m.missing for name, m in self.metrics.items() if m.missing is not None}

    def _values(self, index: int) -> dict[str, float]:
        return {
            f"{name}.{key}": value
            for name, metric in self.metrics.items()
            if metric.missing is None
            for key, value in metric.values[index].items()
        }


def write(evaluation: Evaluation, folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Write `evaluation.json` and `evaluation.csv`; returns what the first one says."""
    table = _table(evaluation, folder, command)
    write_text(folder / "evaluation.csv", _csv(evaluation, table["videos"]))
    write_json(folder / NAME, table)
    return table


def _table(evaluation: Evaluation, folder: Path, command: Sequence[str]) -> dict[str, Any]:
    rows = evaluation.rows
    summary = summarise(rows)
    better = {name: metric.better for name, metric in evaluation.metrics.items()}
    values = dict.fromkeys(name for row in rows for name in row.values)
    paired = compare(rows, {value: better[value.split(".")[0]] for value in values})
    table = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "title": evaluation.title,
        "recipe": evaluation.recipe,
        "metrics": {name: _told(metric) for name, metric in evaluation.metrics.items()},
        "videos": [
            {
                "file": _relative(video.file, folder),
                "model": video.model,
                "prompt": video.prompt,
                "seed": video.seed,
                "sha256": video.sha256,
                "values": dict(row.values),
            }
            for video, row in zip(evaluation.videos, rows, strict=True)
        ],
        "summary": summary,
        "paired": paired,
        "references": {name: list(paths) for name, paths in evaluation.references.items()},
    }
    if evaluation.average_of:
        table["average_score"] = {
            "models": average_score(summary, evaluation.average_of),
            "of": dict(evaluation.average_of),
            "warning": MIXED,
        }
    return table


def _told(metric: Measured) -> dict[str, Any]:
    return {
        "kind": metric.kind,
        "identity": dict(metric.identity.table) if metric.identity else {},
        "hash": metric.identity.hash if metric.identity else "",
        "better": metric.better,
        "missing": metric.missing,
    }


def _relative(file: Path, folder: Path) -> str:
    """As seen from the folder, where both can be moved together; else absolute."""
    file, folder = file.absolute(), folder.absolute()
    near = folder.parent
    if file.is_relative_to(near) or file.is_relative_to(near.parent):
        return Path(os.path.relpath(file, folder)).as_posix()
    return str(file)


def _csv(evaluation: Evaluation, videos: Sequence[Mapping[str, Any]]) -> str:
    """A row for each video, a column for each value; a comment for each metric says what it is."""
    names = list(dict.fromkeys(name for video in videos for name in video["values"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("model", "prompt", "seed", "file", "sha256")
    writer.writerow([*keys, *names])
    for video in videos:
        values = (video["values"].get(name, "") for name in names)
        writer.writerow([*(video[key] for key in keys), *values])
    return text.getvalue()


def told(table: Mapping[str, Any]) -> Iterator[str]:
    """What `evaluation.json` says, for a terminal."""
    models = list(table["summary"])
    names = dict.fromkeys(name for values in table["summary"].values() for name in values)
    if names:
        yield "mean [95 % interval, over prompts and seeds]"
        rows = [
            [name, *(_estimate(table["summary"][model].get(name)) for model in models)]
            for name in names
        ]
        yield from aligned(["metric", *models], rows)
    if table["paired"]:
        yield ""
        yield "difference on the same prompts and seeds [95 % interval], and pairs won"
        rows = [
            [pair["value"], f"{pair['one']} - {pair['other']}", _difference(pair), _wins(pair)]
            for pair in table["paired"]
        ]
        yield from aligned(["metric", "models", "difference", "won / tied / lost"], rows)
    if average := table.get("average_score"):
        yield ""
        yield from _average(average)
    for name, metric in table["metrics"].items():
        if metric["missing"] is not None:
            yield f"missing: metric.{name}: {metric['missing']}"


def _average(average: Mapping[str, Any]) -> Iterator[str]:
    for model, value in average["models"].items():
        shown = "none, for some of its numbers are missing" if value is None else f"{value:.4f}"
        yield f"Average-Score of {model}: {shown}"
    yield f"warning: the Average-Score is {average['warning']}"


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.4f}{_interval(found)} n={found['videos']}"


def _difference(pair: Mapping[str, Any]) -> str:
    return f"{pair['difference']:+.4f}{_interval(pair)}"


def _interval(found: Mapping[str, Any]) -> str:
    return "" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]"


def _wins(pair: Mapping[str, Any]) -> str:
    return f"{pair['wins']} / {pair['ties']} / {pair['losses']} of {pair['pairs']}"
