"""Ablations: a base recipe and variants laid over it, one run each, one table at the end."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.plugins import Plugins
from jtcore.recipe import Recipe
from jtcore.report import markdown_table
from jtcore.run import fill_folder, new_folder, read_json, write_json
from jtcore.structure import name_problems
from jtcore.tables import Table, overlay

INDEX = "ablation.json"


def variants(table: Table) -> dict[str | None, Table]:
    """Each variant's table by name; a plain recipe is one variant without a name."""
    table = dict(table)
    overlays = table.pop("variant", None)
    if overlays is None:
        return {None: table}
    if not isinstance(overlays, Mapping) or not overlays:
        raise JtError("variant: expected tables [variant.NAME]")
    problems = name_problems(overlays, "variant")
    problems += [
        f"variant.{n}: expected a table" for n, v in overlays.items() if not isinstance(v, Mapping)
    ]
    if problems:
        raise JtError(problems)
    return {name: overlay(table, above) for name, above in overlays.items()}


def create(
    folder: Path,
    path: Path,
    settings: Sequence[str],
    recipes: Mapping[str, Recipe],
    plugins: Mapping[str, Plugins],
) -> None:
    """Make the folder of an ablation with a run directory for each variant, whole at once.

    Raises FolderExistsError where it is there already.
    """
    with new_folder(folder) as aside:
        for name, recipe in recipes.items():
            (aside / name).mkdir()
            fill_folder(aside / name, path, settings, recipe, plugins[name])
        write_json(aside / INDEX, {"variants": list(recipes)})


def run_folders(folder: Path) -> list[Path]:
    """The run directories of an ablation in order; none where it is not one."""
    index = read_json(folder / INDEX)
    return [folder / name for name in index["variants"]] if index else []


def write_table(folder: Path) -> str:
    """Write `ablation.csv` and `ablation.md`: a row for each variant. Returns the table."""
    rows = {
        run.name: _numbers(read_json(run / "metrics.json") or {}) for run in run_folders(folder)
    }
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", *columns])
    writer.writerows([name, *(row.get(c, "") for c in columns)] for name, row in rows.items())
    shown = [[name, *(_shown(row.get(c)) for c in columns)] for name, row in rows.items()]
    table = "\n".join(markdown_table(["variant", *columns], shown))
    write_text(folder / "ablation.csv", text.getvalue())
    write_text(folder / "ablation.md", table + "\n")
    return table


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """What is compared of a run: changes of the held-out losses, and metrics of its samples."""
    losses = {
        f"{name} loss change": row["change"] for name, row in results.get("validation", {}).items()
    }
    adapted = results.get("metrics", {}).get("adapted", {})
    return losses | {name: value["mean"] for name, value in adapted.items()}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
