"""Figures: nothing of them is hidden, cut off or lost."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from jtcore.frequency.drawing import COLOURS, DECADES, draw
from jtcore.frequency.figures import Figure, Line, Map, Panel, write_figure

X = [0.0, 0.1, 0.2, 0.3]


def figure(*lines: Line, logarithmic: bool = True, **options) -> Figure:
    return Figure("t", [Panel("p", "x", "y", lines, logarithmic)], **options)


def lined(y: list[float], spread: float = 1.5, label: str = "a", **options) -> Line:
    low, high = [v / spread for v in y], [v * spread for v in y]
    return Line(label, X, y, low, high, **options)


def colours(path: Path) -> list[int]:
    """How many pixels have each colour of lines."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB")).reshape(-1, 3) / 255
    return [int((np.abs(pixels - to_rgb(each)).max(1) < 0.02).sum()) for each in COLOURS]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("same_scale", [True, False])
def test_all_points_and_intervals_are_inside_of_their_axes(logarithmic, same_scale):
    panels = [
        Panel(str(scale), "x", "y", [lined([scale, 5 * scale, 2 * scale, scale])], logarithmic)
        for scale in (0.01, 10)
    ]
    drawing = draw(Figure("t", panels, same_scale=same_scale))
    for panel, axes in zip(panels, drawing.axes, strict=True):
        (line,) = panel.lines
        bottom, top = axes.get_ylim()
        assert bottom < min(line.low) and max(line.high) < top
        left, right = axes.get_xlim()
        assert left < X[0] and X[-1] < right


def test_lines_that_coincide_are_all_to_be_seen(tmp_path):
    same = np.array([1.0, 2.0, 1.5, 1.2])
    for name, apart in (("same", 1), ("apart", 10)):
        lines = [lined((same * apart**number).tolist(), label=str(number)) for number in range(4)]
        write_figure(figure(*lines), tmp_path, name)
    same, apart = (np.array(colours(tmp_path / f"{name}.png")[:4]) for name in ("same", "apart"))
    assert (same > 0.25 * apart).all()  # flat parts are below each other, but for dashes


def test_rounding_takes_no_room_on_a_logarithmic_axis():
    drawing = draw(figure(Line("a", X, [1.0, 1e-3, 1e-22, 1e-23])))
    bottom, top = drawing.axes[0].get_ylim()
    assert top / bottom < 10 ** (DECADES + 1)
    assert bottom < 1e-3


def test_an_interval_without_end_leaves_the_axis_and_does_not_stretch_it():
    line = Line("a", X, [1.0, 1.0, 1.0, 1.0], [1e-30, 0.5, 0.5, -1.0], [1e30, 2.0, 2.0, 3.0])
    bottom, top = draw(figure(line)).axes[0].get_ylim()
    assert 0.1 < bottom < 0.5
    assert 3 < top < 10


def test_what_chance_has_is_dotted_in_the_colour_of_what_it_is_beside():
    chance = Line("by chance", X, [1.0] * 4, beside="b")
    drawing = draw(figure(lined([1.0] * 4), lined([2.0] * 4, label="b"), chance))
    drawn = {line.get_label(): line for line in drawing.axes[0].lines}
    assert drawn["by chance"].get_color() == drawn["b"].get_color()
    assert drawn["by chance"].get_color() != drawn["a"].get_color()
    assert drawn["by chance"].get_marker() == ""


def test_a_label_is_drawn_alike_in_all_panels_and_no_two_alike():
    labels = [f"line {number}" for number in range(12)]
    lines = [lined([1.0] * 4, label=label) for label in labels]
    panels = [Panel("p", "x", "y", lines), Panel("q", "x", "y", lines[::-1])]
    looks = []
    for axes in draw(Figure("t", panels)).axes:
        style = {
            line.get_label(): (line.get_color(), line.get_marker(), str(line.get_linestyle()))
            for line in axes.lines
        }
        looks.append(style)
    assert looks[0] == looks[1]
    assert len(set(looks[0].values())) == len(labels)


def test_numbers_are_beside_a_figure_with_the_names_of_points(tmp_path):
    line = Line("a", [0, 1], [0.5, 0.25], names=["first", "second"])
    written = write_figure(figure(line), tmp_path, "named")
    assert [path.name for path in written] == ["named.png", "named.svg", "named.csv"]
    found = [list(row.values()) for row in rows(tmp_path / "named.csv")]
    assert found == [
        ["p", "a", "0", "first", "0.5", "", ""],
        ["p", "a", "1", "second", "0.25", "", ""],
    ]


def test_a_maps_numbers_are_beside_it_and_pictures_have_none(tmp_path):
    one = Map("m", "x", "y", [0.1, 0.2], [0.0, 0.5], np.array([[1.0, -1.0], [2.0, 3.0]]))
    write_figure(Figure("t", maps=[one], of_maps="what"), tmp_path, "map")
    found = [float(row["value"]) for row in rows(tmp_path / "map.csv")]
    assert found == [1, -1, 2, 3]
    shown = Figure("t", pictures=[("noise", np.random.default_rng(0).random((4, 8, 3)))])
    assert [path.suffix for path in write_figure(shown, tmp_path, "noise")] == [".png", ".svg"]
    assert not (tmp_path / "noise.csv").exists()


def test_a_figure_is_as_wide_as_a_page_whatever_it_has(tmp_path):
    panels = [Panel(str(number), "x", "y", [lined([1.0] * 4)]) for number in range(4)]
    for columns in (2, 4):
        drawing = draw(Figure("t", panels, columns))
        assert drawing.get_figwidth() < 7.5
