"""Figures, each with its numbers in a CSV file beside it, and in TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import Factory, frozen

from jtcore.files import write_atomically, write_text

RESOLUTION = 150  # dots per inch of a PNG
COLUMNS = ("panel", "line", "x", "name", "y", "low", "high")


@frozen(eq=False)
class Line:
    """One line of a panel, with an interval around each point where there is one."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    names: Sequence[str] | None = None  # of its points, where x only counts them
    beside: str | None = None  # the label of the line that it is what chance has of


@frozen(eq=False)
class Panel:
    """One pair of axes with lines."""

    title: str
    x: str  # with its unit
    y: str
    lines: Sequence[Line] = ()
    logarithmic: bool = False  # in y


@frozen(eq=False)
class Map:
    """One pair of axes with a number at each x and y, where 0 is in the middle."""

    title: str
    x: str  # with its unit
    y: str
    columns: Sequence[float]  # (K,)
    rows: Sequence[float]  # (L,)
    values: np.ndarray  # (L, K)


@frozen(eq=False)
class Figure:
    """Panels, or maps, or pictures"""

    title: str
    panels: Sequence[Panel] = ()
    columns: int = 2
    note: str = ""
    pictures: Sequence[tuple[str, np.ndarray]] = Factory(tuple)  # labels, (H, W, 3) in [0, 1]
    maps: Sequence[Map] = ()
    of_maps: str = ""  # what their numbers are
    same_scale: bool = False  # in y, of all panels, which then are of one quantity


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png, .svg and, where it has numbers, .csv into a folder; and the same into its
    folder `tensorboard`."""
    from jtcore.frequency.drawing import draw

    drawing, written = draw(figure), []
    for kind in ("png", "svg"):
        written.append(folder / f"{name}.{kind}")
        with write_atomically(written[-1]) as aside:
            aside.write_bytes(_saved(drawing, kind))
    told = list(rows(figure))
    if told:
        written.append(folder / f"{name}.csv")
        write_table(written[-1], told)
    _tell_tensorboard(figure, folder / "tensorboard", name, written[0])
    return written


def write_table(path: Path, told: Iterable[Mapping[str, Any]]) -> None:
    """Rows with the same keys, as a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(told):
        if number == 0:
            writer.writerow(row)
        writer.writerow([f"{v:.8g}" if isinstance(v, float) else v for v in row.values()])
    write_text(path, text.getvalue())


def rows(figure: Figure) -> Iterator[dict[str, Any]]:
    """Every number of a figure, with its place."""
    for panel in figure.panels:
        for line in panel.lines:
            given = (line.x, line.names, line.y, line.low, line.high)
            filled = ([""] * len(line.x) if one is None else one for one in given)
            for each in zip(*filled, strict=True):
                yield dict(zip(COLUMNS, (panel.title, line.label, *each), strict=True))
    for one in figure.maps:
        for y, values in zip(one.rows, one.values.tolist(), strict=True):
            for x, value in zip(one.columns, values, strict=True):
                yield {"map": one.title, one.x: float(x), one.y: float(y), "value": value}


def _saved(drawing: Any, kind: str) -> bytes:
    from matplotlib import rc_context

    from jtcore.frequency.drawing import STYLE

    plain = {"png": {"Software": None}, "svg": {"Date": None}}[kind]  # as bytes, the same each time
    buffer = io.BytesIO()
    with rc_context(STYLE):
        drawing.savefig(buffer, format=kind, dpi=RESOLUTION, metadata=plain)
    return buffer.getvalue()


def _tell_tensorboard(figure: Figure, folder: Path, name: str, picture: Path) -> None:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / name) as writer:
        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        writer.add_image(name, pixels, dataformats="HWC")
        for panel in figure.panels:
            for line in panel.lines:
                for index, value in enumerate(line.y):
                    tag = f"{name}/{panel.title}/{line.label}".replace(" ", "_")
                    writer.add_scalar(tag, value, index)
