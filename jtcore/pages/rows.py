"""Rows of a report's tables, as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Rows = tuple[list[str], list[list[str]]]  # a header, and what is below it
Results = Mapping[str, Any]  # a run's metrics.json


def metric_rows(results: Results) -> Rows:
    """Per metric its value for each model."""
    summary = results.get("metrics", {})
    names = dict.fromkeys(name for values in summary.values() for name in values)
    rows = [
        [name, *(_shown(values[name]) if name in values else "" for values in summary.values())]
        for name in names
    ]
    return ["metric", *summary], rows


def validation_rows(results: Results) -> Rows:
    """Held-out losses."""
    rows = [
        [
            name,
            f"{row['base']:.4f}",
            f"{row['adapted']:.4f}",
            f"{row['change']:+.4f} ± {row['change_standard_error']:.4f}",
        ]
        for name, row in results.get("validation", {}).items()
    ]
    return ["held-out data", "base", "adapted", "change ± standard error"], rows


def reach_rows(results: Results) -> Rows:
    """What adapters reach."""
    rows = [
        [name, *(f"{reach[key]:,}" for key in ("modules", "parameters"))]
        for name, reach in results.get("adapters", {}).items()
    ]
    return ["adapter", "modules", "parameters"], rows


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table for a terminal: columns of one width each."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()


def _shown(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f} ± {value['deviation']:.4f} (n={value['videos']})"
