"""The tables of a grid: numbers of every run, means over seeds, paired differences."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jtcore.files import write_text
from jtcore.grids.grid import Trial, read_grid
from jtcore.report import markdown_table
from jtcore.run import read_json
from jtcore.statistics import Interval, mean_interval, student

BASE = "base model"

Results = Mapping[str, Any]  # a run's metrics.json
Numbers = Mapping[str, float]  # of one run, by name
Seeds = Mapping[int | None, float]  # one number of one variant, by seed
Columns = Mapping[str, Mapping[str, str]]  # what a table shows, by heading and name


def write_tables(folder: Path) -> str:
    """Write `grid.csv`, a row for each run, and `grid.md`, a column for each variant.

    Returns what `grid.md` says. Where there are seeds, it has means over them, changes from the
    base model and differences to the first variant, with intervals. Variants whose base models
    measure differently were asked different things, and are not compared to each other.
    """
    results = {
        trial: read_json(folder / trial.folder / "metrics.json") or {}
        for trial in read_grid(folder).trials
    }
    rows = {trial: _numbers(result) for trial, result in results.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    seeded = any(trial.seed is not None for trial in rows)
    tables = _over_seeds(results, rows) if seeded else [_plain(results, rows)]
    text = "\n\n".join("\n".join(_lines(names, *table)) for table in tables)
    write_text(folder / "grid.csv", _csv(rows, names, seeded))
    write_text(folder / "grid.md", f"{text}\n")
    return text


def _numbers(results: Results) -> Numbers:
    """What is compared: changes of the held-out losses, what adapters say, metrics of samples."""
    numbers: dict[str, float] = {}
    for name, row in results.get("validation", {}).items():
        numbers[f"{name} loss change"] = row["change"]
        numbers |= {f"{name} {key}": value for key, value in row.get("adapters", {}).items()}
    return numbers | _means(results, "adapted")


def _means(results: Results, model: str) -> dict[str, float]:
    return {name: value["mean"] for name, value in _summary(results, model).items()}


def _summary(results: Results, model: str) -> Mapping[str, Mapping[str, Any]]:
    return results.get("metrics", {}).get(model, {})


def _plain(results: Mapping[Trial, Results], rows: Mapping[Trial, Numbers]) -> tuple[str, Columns]:
    adapted = {
        trial.variant: {name: f"{value:.4f}" for name, value in row.items()}
        for trial, row in rows.items()
    }
    return "", _base(results) | adapted


def _over_seeds(
    results: Mapping[Trial, Results], rows: Mapping[Trial, Numbers]
) -> Iterator[tuple[str, Columns]]:
    """Each table's title and columns."""
    found, base = _by_variant(rows), _base(results)
    over = "over seeds; of the base model over videos" if base else "over seeds"
    yield f"Mean ± 95 % interval (Student's t) {over}.", base | _cells(found, "")
    changes = _by_variant({trial: _changes(result) for trial, result in results.items()})
    if any(changes.values()):
        title = "Change from the base model, prompt by prompt: mean over seeds ± 95 % interval."
        yield title, _cells(changes, "+")
    first, *others = found
    if others and base:
        differences = {variant: _differences(found[variant], found[first]) for variant in others}
        title = f"Difference to {first}, seed by seed: mean ± 95 % interval (Student's t)."
        yield title, _cells(differences, "+")


def _base(results: Mapping[Trial, Results]) -> Columns:
    """The base model's column; none where runs asked it different things."""
    summaries = [found for each in results.values() if (found := _summary(each, "base"))]
    if not summaries or any(other != summaries[0] for other in summaries):
        return {}
    return {
        BASE: {
            name: _shown(student(value["mean"], value["deviation"], value["videos"]), "")
            for name, value in summaries[0].items()
        }
    }


def _changes(results: Results) -> Numbers:
    """Of metrics: how far the adapted model is from the base model."""
    base, adapted = _means(results, "base"), _means(results, "adapted")
    return {name: adapted[name] - base[name] for name in adapted if name in base}


def _by_variant(rows: Mapping[Trial, Numbers]) -> dict[str, dict[str, dict[int | None, float]]]:
    """Of runs that have come so far, by variant, name and seed."""
    found: dict[str, dict[str, dict[int | None, float]]] = {}
    for trial, row in rows.items():
        variant = found.setdefault(trial.variant, {})
        for name, value in row.items():
            variant.setdefault(name, {})[trial.seed] = value
    return found


def _differences(ones: Mapping[str, Seeds], others: Mapping[str, Seeds]) -> dict[str, Seeds]:
    """`ones` - `others` for the seeds that both have."""
    shared = {
        name: {seed: one[seed] - other[seed] for seed in one if seed in other}
        for name, one in ones.items()
        if (other := others.get(name))
    }
    return {name: seeds for name, seeds in shared.items() if seeds}


def _cells(found: Mapping[str, Mapping[str, Seeds]], sign: str) -> dict[str, dict[str, str]]:
    return {
        variant: {
            name: _shown(mean_interval(list(seeds.values())), sign) for name, seeds in row.items()
        }
        for variant, row in found.items()
    }


def _shown(found: Interval, sign: str) -> str:
    """On how many values it stands; where these are all the same, they bound nothing."""
    if found.low == found.high:
        return f"{found.estimate:{sign}.4f} (all {found.count})"
    reach = f" ± {(found.high - found.low) / 2:.4f}" if found.is_bounded else ""
    return f"{found.estimate:{sign}.4f}{reach} (n={found.count})"


def _lines(names: Sequence[str], title: str, columns: Columns) -> Iterator[str]:
    """A row for each name that some column has; what another lacks is left empty."""
    if title:
        yield f"{title}\n"
    rows = [
        [name, *(column.get(name, "") for column in columns.values())]
        for name in names
        if any(name in column for column in columns.values())
    ]
    yield from markdown_table(["", *columns], rows)


def _csv(rows: Mapping[Trial, Numbers], names: Sequence[str], seeded: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", *(["seed"] if seeded else []), *names])
    for trial, row in rows.items():
        labels = [trial.variant, trial.seed] if seeded else [trial.variant]
        writer.writerow([*labels, *(row.get(name, "") for name in names)])
    return text.getvalue()
