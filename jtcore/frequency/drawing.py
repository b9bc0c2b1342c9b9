"""How figures are drawn: in one style, as wide as a page, for the colour-blind and in print.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which the colour-blind can tell
apart; lines differ in their markers and dashes too, so that figures can be read in grey. Intervals
are bars, and lines that have them stand a little beside each other, for what coincides would
otherwise hide what is below it. Maps are in cividis (https://doi.org/10.1371/journal.pone.0199239),
which is as good in grey: the brighter, the more.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing
from matplotlib.transforms import ScaledTranslation

from jtcore.frequency.figures import Figure, Line, Map, Panel

matplotlib.use("Agg")

COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#999999")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 2)), (0, (5, 2, 1, 2)))
CHANCE = (0, (1, 1.5))  # dots
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jtcore",  # so that the same numbers make the same file
}
PAGE = 7.2  # inches, a page's width, at which letters have the size of a text's
HEIGHT = 2.05  # of a panel
LINE = 0.18  # of text
LETTERS = 104  # of a note, in a line of a page
DECADES = 6  # that a logarithmic axis shows at most: what is below is rounding
BESIDE = 2.0  # points, of two lines that coincide


def draw(figure: Figure) -> Drawing:
    """Panels, maps or pictures, row by row."""
    each = [*figure.panels, *figure.maps, *figure.pictures]
    columns = min(figure.columns, len(each))
    lines = ceil(len(each) / columns)
    width = PAGE if columns > 1 else 0.6 * PAGE
    title = fill(figure.title, int(LETTERS * width / PAGE))
    note = fill(figure.note.replace(" %", "\u00a0%"), int(LETTERS * width / PAGE))
    headed = f"{title}\n{note}".strip()
    labels = list(dict.fromkeys(line.label for panel in figure.panels for line in panel.lines))
    told = _legend_columns(labels, width)
    rows = ceil(len(labels) / told) if labels else 0
    height = _row_height(figure, width / columns) * lines
    height += LINE * (headed.count("\n") + 2 + rows)
    with pyplot.rc_context(STYLE):
        drawing, axes = pyplot.subplots(
            lines,
            columns,
            figsize=(width, height),
            squeeze=False,
            layout="constrained",
            sharey=figure.same_scale,
        )
        places = list(axes.ravel())
        if figure.panels:
            _draw_panels(figure, drawing, places, told)
        elif figure.maps:
            _draw_maps(figure, drawing, places)
        else:
            _draw_pictures(figure, places)
        for place in places[len(each) :]:
            place.axis("off")
        drawing.suptitle(headed, fontsize=9)
        drawing.get_layout_engine().execute(drawing)  # once, not each time that it is saved
        drawing.set_layout_engine("none")
    pyplot.close(drawing)
    return drawing


def _row_height(figure: Figure, width: float) -> float:
    """Of a row whose places are so wide, in inches."""
    if figure.panels:
        return HEIGHT
    if figure.maps:
        return 0.75 * width + 0.45
    return max(width * pixels.shape[0] / pixels.shape[1] for _, pixels in figure.pictures) + 0.2


def _draw_panels(figure: Figure, drawing: Drawing, places: Sequence[Axes], columns: int) -> None:
    styles = _styles([line for panel in figure.panels for line in panel.lines])
    for number, (panel, place) in enumerate(zip(figure.panels, places, strict=False)):
        _draw_panel(panel, place, styles)
        if figure.same_scale and number % figure.columns:
            place.set_ylabel("")
        _limit(figure.panels if figure.same_scale else [panel], place)
    _add_legend(drawing, places[: len(figure.panels)], columns)


def _draw_panel(panel: Panel, place: Axes, styles: Mapping[str, Mapping[str, object]]) -> None:
    drawn = [line for line in panel.lines if len(line.x)]
    steps = _steps_beside(drawn, place)
    for line, step in zip(drawn, steps, strict=True):
        style = {"ms": 3.5, "lw": 1.2, **styles[line.label]}
        moved = ScaledTranslation(step / 72, 0, place.figure.dpi_scale_trans)
        at = place.transData + moved
        y = np.where(np.greater(line.y, 0), line.y, np.nan) if panel.logarithmic else line.y
        place.plot(line.x, y, label=line.label, transform=at, **style)
        if line.low is not None and line.high is not None:
            colour = style["color"]
            place.vlines(line.x, line.low, line.high, colors=colour, lw=0.9, transform=at)
    place.set_title(panel.title)
    place.set(xlabel=panel.x, ylabel=panel.y)
    if panel.logarithmic:
        place.set_yscale("log", nonpositive="clip")
    x = [value for line in drawn for value in line.x] or [0, 1]
    margin = 0.05 * (max(x) - min(x)) or 0.5
    place.set_xlim(min(x) - margin, max(x) + margin)
    if all(float(value).is_integer() for value in x):
        place.xaxis.get_major_locator().set_params(integer=True)


def _steps_beside(lines: Sequence[Line], place: Axes) -> list[float]:
    """How far each line is moved to the right, in points: lines with intervals alone."""
    if not any(line.low is not None for line in lines):
        return [0.0] * len(lines)
    points = max(len(line.x) for line in lines)
    box = place.get_position()
    room = 72 * place.figure.get_figwidth() * box.width / max(points, 2)
    step = min(BESIDE, 0.6 * room / len(lines))
    return [step * (number - (len(lines) - 1) / 2) for number in range(len(lines))]


def _limit(panels: Sequence[Panel], place: Axes) -> None:
    """Show all points, and their intervals; but on logarithmic axes neither rounding nor intervals
    without end."""
    lines = [line for panel in panels for line in panel.lines]
    values = np.array([value for line in lines for value in line.y], dtype=float)
    ends = [end for line in lines for given in (line.low, line.high) for end in given or ()]
    if not panels[0].logarithmic:
        shown = [value for value in (*values, *ends) if np.isfinite(value)] or [0.0, 1.0]
        margin = 0.06 * (max(shown) - min(shown)) or 0.5
        place.set_ylim(min(shown) - margin, max(shown) + margin)
        return
    values = values[values > 0]
    if len(values):
        top, bottom = values.max(), max(values.min(), values.max() / 10**DECADES)
        near = [end for end in ends if bottom / 10 < end < top * 10]
        place.set_ylim(min([bottom, *near]) / 1.5, max([top, *near]) * 1.5)


def _styles(lines: Sequence[Line]) -> dict[str, dict[str, object]]:
    """How each label is drawn, the same in all panels."""
    found: dict[str, dict[str, object]] = {}
    for line in lines:
        if line.beside is None and line.label not in found:
            index = len(found)
            turn, colour = divmod(index, len(COLOURS))
            found[line.label] = {
                "color": COLOURS[colour],
                "marker": MARKERS[(index + turn) % len(MARKERS)],
                "linestyle": DASHES[index % len(DASHES)],
            }
    for line in lines:
        if line.beside is not None:
            colour = found[line.beside]["color"]
            found[line.label] = {"color": colour, "linestyle": CHANCE, "marker": "", "lw": 1.5}
    return found


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """So many that the rows of a legend fill the width (inches), and are of the same length."""
    if not labels:
        return 1
    room = LETTERS * width / PAGE
    most = max(1, int(room / (max(map(len, labels)) + 10)))  # besides the lines themselves
    return ceil(len(labels) / ceil(len(labels) / most))


def _add_legend(drawing: Drawing, places: Sequence[Axes], columns: int) -> None:
    """One for all panels."""
    found = {}
    for place in places:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        drawing.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=columns, handlelength=3
        )


def _draw_maps(figure: Figure, drawing: Drawing, places: Sequence[Axes]) -> None:
    reach = max(float(np.abs(one.values[np.isfinite(one.values)]).max()) for one in figure.maps)
    for one, place in zip(figure.maps, places, strict=False):
        mesh = _draw_map(one, place, Normalize(-reach, reach))
        place.label_outer()
        place.set_title(one.title.replace(", ", "\n"), fontsize=8)
    drawing.supxlabel(figure.maps[0].x, fontsize=9)
    drawing.supylabel(figure.maps[0].y, fontsize=9)
    drawing.colorbar(mesh, ax=list(places), label=figure.of_maps, shrink=0.6)


def _draw_map(one: Map, place: Axes, scale: Normalize) -> object:
    mesh = place.imshow(one.values, origin="lower", aspect="auto", cmap="cividis", norm=scale)
    for axis, values in ((place.xaxis, one.columns), (place.yaxis, one.rows)):
        shown = range(0, len(values), max(1, ceil(len(values) / 4)))
        axis.set_ticks(list(shown), [f"{values[index]:.2g}" for index in shown])
    place.grid(visible=False)
    return mesh


def _draw_pictures(figure: Figure, places: Sequence[Axes]) -> None:
    for (label, pixels), place in zip(figure.pictures, places, strict=False):
        place.imshow(pixels, interpolation="nearest")
        place.set_title(label, fontsize=8)
        place.axis("off")
