"""Metrics over the videos of a run, read back from disk as a stranger would."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jtcore.media import read_sample
from jtcore.structure import Component
from jtcore.types import Sample


def measure(
    samples: Sequence[Mapping[str, Any]], folder: Path, metrics: Mapping[str, Component]
) -> list[dict[str, Any]]:
    """Each sample's entry with `metrics`: the values of every metric, by `metric.value` name."""
    measured = []
    for entry in samples:
        video, fps = read_sample(folder / entry["file"])
        sample = Sample(video, entry["prompt"], entry["seed"], fps)
        values = {
            f"{name}.{key}": float(value)
            for name, metric in metrics.items()
            for key, value in metric.spec(sample).items()
        }
        measured.append({**entry, "metrics": values})
    return measured


def summarise(measured: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By model and metric: mean, standard deviation over videos, and their count."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for model in dict.fromkeys(entry["model"] for entry in measured):
        rows = [entry["metrics"] for entry in measured if entry["model"] == model]
        names = dict.fromkeys(name for row in rows for name in row)
        summary[model] = {
            name: _statistics([row[name] for row in rows if name in row]) for name in names
        }
    return summary


def _statistics(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": fmean(values),
        "deviation": stdev(values) if len(values) > 1 else 0.0,
        "videos": len(values),
    }
