"""Metrics over the videos of a run, read back from disk as a stranger would."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from jtcore.media import read_sample
from jtcore.structure import Component
from jtcore.types import Sample


def measure(
    samples: Sequence[Mapping[str, Any]],
    folder: Path,
    metrics: Mapping[str, Component],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Each sample's entry with `metrics`: the values of every metric, by `metric.value` name."""
    values: list[dict[str, float]] = [{} for _ in samples]
    for name, metric in metrics.items():  # one in memory at a time
        loaded = metric.spec.load(device)
        for entry, found in zip(samples, values, strict=True):
            video, fps = read_sample(folder / entry["file"])
            answer = loaded(Sample(video, entry["prompt"], entry["seed"], fps))
            found |= {f"{name}.{key}": float(v) for key, v in answer.items() if isfinite(v)}
    return [{**entry, "metrics": found} for entry, found in zip(samples, values, strict=True)]


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
