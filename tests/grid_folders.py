"""Folders of grids as `jt-run` leaves them, with numbers that a test chooses."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

Point = Mapping[str, Any]


def draw_grid(
    folder: Path,
    axes: Mapping[str, Sequence],
    numbers: Callable[[Point], Mapping[str, float] | None],
    base: Callable[[Point], Mapping[str, float]] = lambda point: {},
    zipped: Sequence[Sequence[str]] = (),
    without: Callable[[Point], bool] = lambda point: False,
    **told,
) -> Path:
    """A run for each point, waiting where it has no numbers."""
    points = [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]
    points = [point for point in points if not without(point)]
    runs = [{"folder": "-".join(map(str, point.values())), "point": point} for point in points]
    reference = {axis: levels[0] for axis, levels in axes.items() if axis != "seed"}
    index = {"title": "drawn", "file": "drawn.toml", "axes": {a: list(v) for a, v in axes.items()}}
    index |= {"reference": reference, "zipped": [list(group) for group in zipped], "launch": {}}
    write_json(folder / "grid.json", index | told | {"runs": runs})
    for run in runs:
        found = numbers(run["point"])
        (folder / run["folder"]).mkdir()
        if found is not None:
            finish(folder / run["folder"], found, base(run["point"]))
    return folder


def finish(run: Path, adapted: Mapping[str, float], base: Mapping[str, float] = {}) -> None:
    """With metrics of eight videos, whose standard deviation is 0.5."""
    metrics = {
        model: {name: {"mean": v, "deviation": 0.5, "videos": 8} for name, v in means.items()}
        for model, means in (("base", base), ("adapted", adapted))
    }
    write_json(run / "metrics.json", {"metrics": metrics})
    write_json(run / "result.json", {"seconds": 2.5})


def fail(run: Path, *problems: str, kind: str = "error") -> None:
    at = "2026-11-22T04:00:00+00:00"
    write_json(run / "failure.json", {"kind": kind, "problems": problems, "at": at})


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
