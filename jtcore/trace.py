"""What adapters say of themselves at each step of sampling, as a table and as drawings."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from attrs import Factory, evolve, frozen
from torch import Tensor

from jtcore.files import write_atomically
from jtcore.model import Model
from jtcore.types import Backbone

WIDTH, HEIGHT, MARGIN, LEGEND = 480, 300, 50, 150  # px
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#66418a", "#00798c", "#8d5524", "#555555")


@frozen
class Row:
    """One pass of the denoiser"""

    time: float  # in the schedule's own unit
    log_snr: float
    values: Mapping[str, float]  # by adapter.scalar


@frozen(eq=False, slots=False)
class Listening:
    """A backbone whose every answer is followed by a row of what adapters say of that pass"""

    backbone: Backbone
    model: Model
    rows: list[Row] = Factory(list)

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        answer = self.backbone.predict(latents, times, text)
        log_snr = float(self.backbone.levels(times[:1]).log_snr)
        self.rows.append(Row(float(times[0]), log_snr, dict(_said(self.model))))
        return answer

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)


def listening(model: Model) -> tuple[Model, list[Row]]:
    """A model that samples as this one does, and the rows that it fills meanwhile."""
    backbone = Listening(model.backbone, model)
    return evolve(model, backbone=backbone), backbone.rows


def write_trace(rows: Sequence[Row], folder: Path) -> list[Path]:
    """`trace.csv`, a row a pass, and for each adapter `NAME.svg`: its scalars over the steps of
    denoising, means over the videos. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    table = folder / "trace.csv"
    with write_atomically(table) as aside, aside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "log_snr", *names])
        for row in rows:
            writer.writerow([row.time, row.log_snr, *(row.values.get(n, "") for n in names)])
    written = [table]
    for adapter in dict.fromkeys(name.split(".")[0] for name in names):
        lines = _lines(rows, [name for name in names if name.split(".")[0] == adapter])
        written.append(folder / f"{adapter}.svg")
        with write_atomically(written[-1]) as aside:
            aside.write_text(_drawing(adapter, lines), encoding="utf-8")
    return written


def _said(model: Model) -> Iterator[tuple[str, float]]:
    for name, adapter in model.adapters.items():
        if adapter.current is not None:
            for key, value in adapter.scalars().items():
                yield f"{name}.{key}", float(value)


def _lines(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[float]]:
    """The values of each scalar in order of steps; times fall while noise becomes clean."""
    times = sorted({row.time for row in rows if row.values}, reverse=True)
    return {
        name.partition(".")[2]: [
            fmean(row.values[name] for row in rows if row.time == time and name in row.values)
            for time in times
        ]
        for name in names
    }


def _drawing(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    steps, span = max(len(next(iter(lines.values()))) - 1, 1), high - low or 1.0

    def place(step: int, value: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / steps
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span
        return f"{x:.1f},{y:.1f}"

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEGEND}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH + LEGEND}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="{MARGIN / 2}">{escape(title)}</text>',
        f'<text x="4" y="{HEIGHT - MARGIN}">{low:.4g}</text>',
        f'<text x="4" y="{MARGIN}">{high:.4g}</text>',
        f'<text x="{WIDTH / 2 - MARGIN}" y="{HEIGHT - MARGIN / 3:.0f}">steps of denoising</text>',
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(place(step, value) for step, value in enumerate(line))
        drawn.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        drawn.append(
            f'<text x="{WIDTH - MARGIN / 2}" y="{MARGIN + 16 * number}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return "\n".join([*drawn, "</svg>\n"])
