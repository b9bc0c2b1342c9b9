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

BASE = "base model"  # whose samples are the same in all runs

Numbers = Mapping[str, float]  # of one run, by name
Rows = Mapping[Trial, Numbers]


def write_tables(folder: Path) -> str:
    """Write `ablation.csv`, a row for each run, and `ablation.md`, a column for each variant.

    Returns what `ablation.md` says. Where there are seeds, it has means over them and differences
    to the first variant, with intervals.
    """
    results = {
        trial: read_json(folder / trial.folder / "metrics.json") or {}
        for trial in read_trials(folder)
    }
    rows = {trial: _numbers(result) for trial, result in results.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    seeded = any(trial.seed is not None for trial in rows)
    base = next(filter(None, (_means(result, "base") for result in results.values())), {})
    text = "\n".join(_over_seeds(rows, base, names) if seeded else _plain(rows, base, names))
    write_text(folder / "ablation.csv", _csv(rows, names, seeded))
    write_text(folder / "ablation.md", text + "\n")
    return text


def _numbers(results: Mapping[str, Any]) -> Numbers:
    """What is compared: changes of the held-out losses, what adapters say, metrics of samples."""
    numbers: dict[str, float] = {}
    for name, row in results.get("validation", {}).items():
        numbers[f"{name} loss change"] = row["change"]
        numbers |= {f"{name} {key}": value for key, value in row.get("adapters", {}).items()}
    return numbers | _means(results, "adapted")


def _means(results: Mapping[str, Any], model: str) -> Numbers:
    summary = results.get("metrics", {}).get(model, {})
    return {name: value["mean"] for name, value in summary.items()}


def _csv(rows: Rows, columns: Sequence[str], seeded: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", *(["seed"] if seeded else []), *columns])
    for trial, row in rows.items():
        names = [trial.variant, trial.seed] if seeded else [trial.variant]
        writer.writerow([*names, *(row.get(column, "") for column in columns)])
    return text.getvalue()


def _plain(rows: Rows, base: Numbers, names: Sequence[str]) -> Iterator[str]:
    columns = {BASE: base} | {trial.variant: row for trial, row in rows.items()}
    return _table(names, {name: _four_digits(row) for name, row in columns.items()})


def _over_seeds(rows: Rows, base: Numbers, names: Sequence[str]) -> Iterator[str]:
    """A table of means over seeds, and one of differences to the first variant."""
    first, *others = dict.fromkeys(trial.variant for trial in rows)
    found = {v: {name: _by_seed(rows, v, name) for name in names} for v in (first, *others)}
    means = {
        variant: {name: _shown(_mean(values), "") for name, values in by_name.items()}
        for variant, by_name in found.items()
    }
    yield "Mean over seeds ± 95 % interval (Student's t).\n"
    yield from _table(names, {BASE: _four_digits(base), **means})
    if others:
        differences = {
            v: {n: _shown(_difference(found[v][n], found[first][n]), "+") for n in names}
            for v in others
        }
        yield f"\nDifference to {first}, seed by seed: mean ± 95 % interval (Student's t).\n"
        yield from _table(names, differences)


def _table(names: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A row for each name; what a column lacks is left empty."""
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    return markdown_table(["", *columns], rows)


def _four_digits(row: Numbers) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in row.items()}


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
