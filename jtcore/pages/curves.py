"""What training told TensorBoard, read back for a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

POINTS = 160  # of a curve, at most: each is the mean of as many steps
RESULTS = re.compile(r"(metric|validation)\.(base|adapted)/|grid/")  # which tables show

Curve = Sequence[tuple[float, float]]  # step, value


def read_curves(run: Path) -> dict[str, Curve]:
    """The scalars of a run's steps by their tags in TensorBoard, thinned to `POINTS`; none where it
    left no events. What a resumed run did over counts once."""
    folder = run / "tensorboard"
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not RESULTS.match(tag)]
    return {tag: thin([(each.step, each.value) for each in events.Scalars(tag)]) for tag in tags}


def thin(points: Curve, count: int = POINTS) -> Curve:
    """At most `count` points, each the mean of neighbours."""
    each = -(-len(points) // count)
    if each == 1:
        return list(points)
    groups = (points[start : start + each] for start in range(0, len(points), each))
    return [_mean(group) for group in groups]


def together(runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """By tag, losses first: the curve of each run that has it."""
    tags = dict.fromkeys(tag for curves in runs.values() for tag in curves)
    ordered = sorted(tags, key=lambda tag: ("loss" not in tag, "validation" not in tag))
    return {
        tag: {run: curves[tag] for run, curves in runs.items() if tag in curves} for tag in ordered
    }


def _mean(points: Curve) -> tuple[float, float]:
    steps, values = zip(*points, strict=True)
    return sum(steps) / len(steps), sum(values) / len(values)
