"""Metrics over the videos of a run, read back from disk as a stranger would."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from jtcore.errors import JtError
from jtcore.evaluation.measuring import Video, measure_all
from jtcore.structure import Component


def measure(
    samples: Sequence[Mapping[str, Any]],
    folder: Path,
    metrics: Mapping[str, Component],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Each sample's entry with `metrics`: the values of every metric, by `metric.value` name.
    Raises JtError where a metric lacks something."""
    videos = [Video(folder / e["file"], e["model"], e["prompt"], e["seed"]) for e in samples]
    found = measure_all(videos, metrics, device)
    if problems := [f"metric.{name}: {m.missing}" for name, m in found.items() if m.missing]:
        raise JtError(problems)
    rows = [
        {f"{name}.{key}": value for name, m in found.items() for key, value in m.values[i].items()}
        for i in range(len(videos))
    ]
    return [{**entry, "metrics": row} for entry, row in zip(samples, rows, strict=True)]


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
