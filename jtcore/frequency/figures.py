"""Figures in one style, each with its numbers in a CSV file beside it and in TensorBoard.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which the colour-blind can tell
apart; lines differ in their markers too, so that figures can be read in grey.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import Factory, frozen

from jtcore.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":")  # once colours have run out
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jtcore",  # so that the same numbers make the same file
}
RESOLUTION = 150  # dots per inch of a PNG
WIDTH, HEIGHT = 3.2, 2.5  # inches, of a panel


@frozen(eq=False)
class Line:
    """One line of a panel, with an interval around it where there is one."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@frozen(eq=False)
class Panel:
    """One pair of axes with lines, or a map of numbers in place of lines."""

    title: str
    x: str  # with its unit
    y: str
    lines: Sequence[Line] = ()
    logarithmic: bool = False  # in y


@frozen(eq=False)
class Figure:
    title: str
    panels: Sequence[Panel]
    columns: int = 2
    note: str = ""
    pictures: Sequence[tuple[str, np.ndarray]] = Factory(tuple)  # labels, (H, W, 3) in [0, 1]


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png, .svg and .csv into a folder; and into its folder `tensorboard`."""
    written = [folder / f"{name}.{kind}" for kind in ("png", "svg", "csv")]
    drawing = _draw(figure)
    for path in written[:2]:
        _save(drawing, path)
    write_text(written[2], _csv(figure))
    _tell_tensorboard(figure, folder / "tensorboard", name, written[0])
    return written


def rows(figure: Figure) -> Iterator[tuple[str, str, float, float, float | str, float | str]]:
    """Panel, line, x, y, and its interval, of every point."""
    for panel in figure.panels:
        for line in panel.lines:
            for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                low = "" if line.low is None else line.low[index]
                high = "" if line.high is None else line.high[index]
                yield panel.title, line.label, x, y, low, high


def _csv(figure: Figure) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["panel", "line", "x", "y", "low", "high"])
    writer.writerows([f"{v:.8g}" if isinstance(v, float) else v for v in r] for r in rows(figure))
    return text.getvalue()


def _draw(figure: Figure) -> Drawing:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(figure.panels) + len(figure.pictures)
    columns = min(figure.columns, count)
    lines = ceil(count / columns)
    with pyplot.rc_context(STYLE):
        drawing, axes = pyplot.subplots(
            lines,
            columns,
            figsize=(WIDTH * columns, _height(figure) * lines + 1),
            squeeze=False,
            layout="constrained",
        )
        places = list(axes.ravel())
        styles = _styles(dict.fromkeys(line.label for each in figure.panels for line in each.lines))
        for panel, place in zip(figure.panels, places, strict=False):
            _draw_panel(panel, place, styles)
        pictured = places[len(figure.panels) : count]
        for (label, pixels), place in zip(figure.pictures, pictured, strict=True):
            place.imshow(pixels, interpolation="nearest")
            place.set_title(label, fontsize=8)
            place.axis("off")
        for place in places[count:]:
            place.axis("off")
        drawing.suptitle(f"{figure.title}\n{figure.note}".strip(), fontsize=9)
        _add_legend(drawing, places[: len(figure.panels)])
    pyplot.close(drawing)
    return drawing


def _height(figure: Figure) -> float:
    """Of a row, in inches: that of its pictures where there is nothing else."""
    if figure.panels:
        return HEIGHT
    return max(WIDTH * pixels.shape[0] / pixels.shape[1] + 0.3 for _, pixels in figure.pictures)


def _draw_panel(panel: Panel, place: Axes, styles: Mapping[str, Mapping[str, str]]) -> None:
    for line in panel.lines:
        style = styles[line.label]
        place.plot(line.x, line.y, ms=3, lw=1.2, label=line.label, **style)
        if line.low is not None and line.high is not None:
            # below 0 there is nothing on a logarithmic axis, and of an energy nothing at all
            low = np.maximum(line.low, np.multiply(line.y, 0.05)) if panel.logarithmic else line.low
            place.fill_between(line.x, low, line.high, color=style["color"], alpha=0.15, lw=0)
    place.set_title(panel.title, fontsize=9)
    place.set(xlabel=panel.x, ylabel=panel.y)
    if panel.logarithmic:
        place.set_yscale("log")


def _styles(labels: Iterable[str]) -> dict[str, dict[str, str]]:
    """How each line is drawn, the same in all panels."""
    found = {}
    for index, label in enumerate(labels):
        turn, colour = divmod(index, len(COLOURS))
        found[label] = {
            "color": COLOURS[colour],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": DASHES[turn % len(DASHES)],
        }
    return found


def _add_legend(drawing: Drawing, places: Sequence[Axes]) -> None:
    """One for all panels."""
    found = {}
    for place in places:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        columns = min(4 if len(places) > 1 else 2, len(found))
        drawing.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=columns, fontsize=8
        )


def _save(drawing: Drawing, path: Path) -> None:
    from matplotlib import rc_context

    kind = path.suffix[1:]
    plain = {"png": {"Software": None}, "svg": {"Date": None}}[kind]  # as bytes, the same each time
    buffer = io.BytesIO()
    with rc_context(STYLE):
        drawing.savefig(buffer, format=kind, dpi=RESOLUTION, metadata=plain, bbox_inches="tight")
    with write_atomically(path) as aside:
        aside.write_bytes(buffer.getvalue())


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
