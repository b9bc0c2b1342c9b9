"""The tables of an ablation: numbers of every run, means over seeds, paired differences."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jtcore.ablation import Trial, read_trials
from jtcore.files import write_text
from jtcore.report import markdown_table
from jtcore.run import read_json
from jtcore.statistics import Interval, mean_interval, paired_difference

Numbers = Mapping[str, float]  # of one run, by column
Rows = Mapping[Trial, Numbers]


def write_tables(folder: Path) -> str:
    """Write `ablation.csv`, a row for each run, and `ablation.md`, a row for each variant.

    Returns what `ablation.md` says. Where there are seeds, it has means over them and differences
    to the first variant, with intervals.
    """
    rows = {
        trial: _numbers(read_json(folder / trial.folder / "metrics.json") or {})
        for trial in read_trials(folder)
    }
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    seeded = any(trial.seed is not None for trial in rows)
    text = "\n".join(_over_seeds(rows, columns) if seeded else _plain(rows, columns))
    write_text(folder / "ablation.csv", _csv(rows, columns, seeded))
    write_text(folder / "ablation.md", text + "\n")
    return text


def _numbers(results: Mapping[str, Any]) -> Numbers:
    """What is compared: changes of the held-out losses, what adapters say, metrics of samples."""
    numbers: dict[str, float] = {}
    for name, row in results.get("validation", {}).items():
        numbers[f"{name} loss change"] = row["change"]
        numbers |= {f"{name} {key}": value for key, value in row.get("adapters", {}).items()}
    adapted = results.get("metrics", {}).get("adapted", {})
    return numbers | {name: value["mean"] for name, value in adapted.items()}


def _csv(rows: Rows, columns: Sequence[str], seeded: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", *(["seed"] if seeded else []), *columns])
    for trial, row in rows.items():
        names = [trial.variant, trial.seed] if seeded else [trial.variant]
        writer.writerow([*names, *(row.get(column, "") for column in columns)])
    return text.getvalue()


def _plain(rows: Rows, columns: Sequence[str]) -> Iterator[str]:
    shown = [
        [trial.variant, *(f"{row[c]:.4f}" if c in row else "" for c in columns)]
        for trial, row in rows.items()
    ]
    return markdown_table(["variant", *columns], shown)


def _over_seeds(rows: Rows, columns: Sequence[str]) -> Iterator[str]:
    """A table of means over seeds, and one of differences to the first variant."""
    first, *others = dict.fromkeys(trial.variant for trial in rows)
    found = {c: {v: _by_seed(rows, v, c) for v in (first, *others)} for c in columns}
    means = [
        [variant, *(_shown(_mean(found[c][variant]), "") for c in columns)]
        for variant in (first, *others)
    ]
    yield "Mean over seeds ± 95 % interval (Student's t).\n"
    yield from markdown_table(["variant", *columns], means)
    if others:
        differences = [
            [v, *(_shown(_difference(found[c][v], found[c][first]), "+") for c in columns)]
            for v in others
        ]
        yield f"\nDifference to {first}, seed by seed: mean ± 95 % interval (Student's t).\n"
        yield from markdown_table(["variant", *columns], differences)


def _by_seed(rows: Rows, variant: str, column: str) -> dict[int | None, float]:
    """Of runs that have come so far."""
    return {
        trial.seed: row[column]
        for trial, row in rows.items()
        if trial.variant == variant and column in row
    }


def _mean(values: Mapping[int | None, float]) -> Interval | None:
    return mean_interval(list(values.values())) if values else None


def _difference(
    one: Mapping[int | None, float], other: Mapping[int | None, float]
) -> Interval | None:
    shared = [seed for seed in one if seed in other]
    if not shared:
        return None
    return paired_difference([one[seed] for seed in shared], [other[seed] for seed in shared])


def _shown(found: Interval | None, sign: str) -> str:
    """With how many seeds it stands on; a single one gives no interval."""
    if found is None:
        return ""
    reach = f" ± {(found.high - found.low) / 2:.4f}" if found.is_bounded else ""
    return f"{found.estimate:{sign}.4f}{reach} (n={found.count})"
