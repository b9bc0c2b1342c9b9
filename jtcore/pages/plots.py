"""Small plots as SVG inside a page: means with their intervals, curves over steps.

Colours are Okabe's and Ito's, which the colour-blind tell apart, and shapes and dashes say the same
(https://jfly.uni-koeln.de/color/).
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import isfinite
from statistics import fmean

from jtcore.pages.curves import Curve

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "12 3", "4 1")
MARKS = (  # of 9 pixels, around (0, 0)
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0",
    "M-4,-4h8v8h-8z",
    "M0,-5l5,9h-10z",
    "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",
    "M-5,-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
    "M0,5l5,-9h-10z",
    "M-6,-2h12v4h-12z",
)
WIDTH, HEIGHT, ROW, FOOT = 300, 130, 20, 20  # pixels
LEFT, RIGHT = 10, 70  # of a row; the number stands at its right
AXIS = 54  # pixels for the numbers of a curve's axis

Row = tuple[str, int, float, float | None, float | None]  # model, its number, mean, low, high


def mark(number: int) -> str:
    """The sign of a model in a legend."""
    path, colour = MARKS[number % len(MARKS)], COLOURS[number % len(COLOURS)]
    return (
        f"<svg class='mark' viewBox='-7 -7 14 14' width='14' height='14' aria-hidden='true'>"
        f"<path d='{path}' fill='{colour}'/></svg>"
    )


def stroke(number: int) -> str:
    """The sign of a curve in a legend."""
    return (
        "<svg class='mark' viewBox='0 0 24 10' width='24' height='10' aria-hidden='true'>"
        f"<path d='M0,5H24' {_pen(number)}/></svg>"
    )


def intervals(name: str, rows: Sequence[Row]) -> str:
    """A line for each model: its mean and interval, on one axis."""
    ends = [end for _, _, *each in rows for end in each if end is not None]
    low, high = _padded(min(ends), max(ends))
    height = ROW * len(rows) + FOOT

    def at(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)

    drawn = "".join(_row(at, place, row) for place, row in enumerate(rows))
    axis = (
        f"<path d='M{LEFT},{height - FOOT}H{WIDTH - RIGHT}' stroke='#8c959f'/>"
        f"<text x='{LEFT}' y='{height - 5}' class='tick'>{low:.3g}</text>"
        f"<text x='{WIDTH - RIGHT}' y='{height - 5}' class='tick end'>{high:.3g}</text>"
    )
    return _svg(height, f"{name}: mean and interval of each model", drawn + axis)


def curve_plot(name: str, runs: Mapping[str, tuple[int, Curve]]) -> str:
    """Of each run its number and curve; a thin line is what was told, a thick one is smooth."""
    points = [point for _, curve in runs.values() for point in curve if isfinite(point[1])]
    if not points:
        return "<p class='note'>no finite value</p>"
    steps, values = zip(*points, strict=True)
    first, last = min(steps), max(max(steps), min(steps) + 1)
    low, high = _padded(min(values), max(values))
    floor = HEIGHT - FOOT

    def place(step: float, value: float) -> str:
        x = AXIS + (WIDTH - AXIS - 4) * (step - first) / (last - first)
        return f"{x:.1f},{4 + (floor - 4) * (high - value) / (high - low):.1f}"

    lines = []
    for run, (order, curve) in runs.items():
        finite = [point for point in curve if isfinite(point[1])]
        raw, smoothed = (
            " ".join(place(*point) for point in each) for each in (finite, smooth(finite))
        )
        told = f"<title>{escape(run)}</title>"
        lines.append(f"<polyline points='{raw}' {_pen(order, 1)} opacity='.35'/>")
        lines.append(f"<polyline points='{smoothed}' {_pen(order)}>{told}</polyline>")
    axes = (
        f"<path d='M{AXIS},4V{floor}H{WIDTH - 4}' fill='none' stroke='#8c959f'/>"
        f"<text x='{AXIS - 4}' y='12' class='tick end'>{high:.3g}</text>"
        f"<text x='{AXIS - 4}' y='{floor}' class='tick end'>{low:.3g}</text>"
        f"<text x='{AXIS}' y='{HEIGHT - 5}' class='tick'>step {round(first)}</text>"
        f"<text x='{WIDTH - 4}' y='{HEIGHT - 5}' class='tick end'>{round(last)}</text>"
    )
    return _svg(HEIGHT, f"{name} over steps", "".join(lines) + axes)


def smooth(curve: Curve, reach: int = 10) -> Curve:
    """The mean of each point and up to `reach` before and after it."""
    values = [value for _, value in curve]
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(curve)))
    return [(step, fmean(window)) for (step, _), window in zip(curve, windows, strict=True)]


def number(value: float) -> str:
    """With four digits that count."""
    return f"{value:.4g}"


def _row(at, place: int, row: Row) -> str:
    model, order, mean, low, high = row
    y = ROW * place + ROW / 2
    colour, path = COLOURS[order % len(COLOURS)], MARKS[order % len(MARKS)]
    told, line = f"{model}: {number(mean)}", ""
    if low is not None and high is not None:
        told += f" [{number(low)}, {number(high)}]"
        line = f"<path d='M{at(low)},{y}H{at(high)}' stroke='{colour}' stroke-width='2'/>"
    return (
        f"<g><title>{escape(told)}</title>{line}"
        f"<path d='{path}' transform='translate({at(mean)},{y})' fill='{colour}'/>"
        f"<text x='{WIDTH - RIGHT + 12}' y='{y + 4}'>{number(mean)}</text></g>"
    )


def _pen(order: int, width: float = 2) -> str:
    dash = DASHES[order % len(DASHES)]
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    colour = COLOURS[order % len(COLOURS)]
    return f"fill='none' stroke='{colour}' stroke-width='{width}'{dashed}"


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1
    return low - room, high + room


def _svg(height: float, label: str, drawn: str) -> str:
    return (
        f"<svg class='plot' viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(label)}'>"
        f"{drawn}</svg>"
    )


def legend(names: Sequence[str], sign=mark) -> Iterator[str]:
    yield "<p class='legend'>"
    yield from (f"<span>{sign(order)} {escape(name)}</span> " for order, name in enumerate(names))
    yield "</p>"
