"""Small plots as SVG inside a page: means with their intervals, curves over steps.

Colours are Okabe's and Ito's, which the colour-blind tell apart, and shapes and dashes say the same
(https://jfly.uni-koeln.de/color/).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from math import isfinite
from operator import itemgetter
from statistics import fmean

from attrs import frozen

from jtcore.pages.curves import Curve, thin

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
FLOOR = HEIGHT - FOOT  # of a curve
BUNDLED, SMOOTH = 60, 3  # points of a mean of several curves, and neighbours that smooth it
NOTHING = "<p class='note'>no finite value</p>"

Row = tuple[str, int, float, float | None, float | None]  # model, its number, mean, low, high


def mark(number: int) -> str:
    """The sign of a model in a legend."""
    colour, shape = _look(number)
    return (
        f"<svg class='mark' viewBox='-7 -7 14 14' width='14' height='14' aria-hidden='true'>"
        f"<path d='{MARKS[shape]}' fill='{colour}'/></svg>"
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
    frame = _Frame.around(curve for _, curve in runs.values())
    if frame is None:
        return NOTHING
    lines = []
    for run, (order, curve) in runs.items():
        finite = [point for point in curve if isfinite(point[1])]
        told = f"<title>{escape(run)}</title>"
        lines.append(f"{frame.line(finite, _pen(order, 1))} opacity='.35'/>")
        lines.append(f"{frame.line(smooth(finite), _pen(order))}>{told}</polyline>")
    return _svg(HEIGHT, f"{name} over steps", "".join(lines) + frame.axes())


def bundle_plot(name: str, levels: Mapping[str, tuple[int, Sequence[Curve]]]) -> str:
    """Of each level its number and the curves of its runs: each is a thin line, and a thick one is
    the mean of all their points that are near each other, smooth."""
    frame = _Frame.around(curve for _, curves in levels.values() for curve in curves)
    if frame is None:
        return NOTHING
    runs, lines = [], []
    for level, (order, curves) in levels.items():
        finite = [[point for point in curve if isfinite(point[1])] for curve in curves]
        runs += [f"{frame.line(each, _pen(order, 1, False))} opacity='.25'/>" for each in finite]
        told = f"<title>{escape(level)}, {len(curves)} runs</title>"
        pooled = sorted((point for each in finite for point in each), key=itemgetter(0))
        if pooled:
            mean = smooth(thin(pooled, BUNDLED), SMOOTH)
            lines.append(f"{frame.line(mean, _pen(order))}>{told}</polyline>")
    return _svg(HEIGHT, f"{name} over steps", "".join([*runs, *lines]) + frame.axes())


@frozen
class _Frame:
    """Where points of curves are in a plot."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, curves: Iterable[Curve]) -> "_Frame | None":
        """All that is finite; None where nothing is."""
        points = [point for curve in curves for point in curve if isfinite(point[1])]
        if not points:
            return None
        steps, values = zip(*points, strict=True)
        last = max(max(steps), min(steps) + 1)
        return cls(min(steps), last, *_padded(min(values), max(values)))

    def line(self, curve: Curve, pen: str) -> str:
        """The beginning of an element."""
        return f"<polyline points='{' '.join(self._place(*point) for point in curve)}' {pen}"

    def _place(self, step: float, value: float) -> str:
        x = AXIS + (WIDTH - AXIS - 4) * (step - self.first) / (self.last - self.first)
        y = 4 + (FLOOR - 4) * (self.high - value) / (self.high - self.low)
        return f"{x:.1f},{y:.1f}"

    def axes(self) -> str:
        return (
            f"<path d='M{AXIS},4V{FLOOR}H{WIDTH - 4}' fill='none' stroke='#8c959f'/>"
            f"<text x='{AXIS - 4}' y='12' class='tick end'>{self.high:.3g}</text>"
            f"<text x='{AXIS - 4}' y='{FLOOR}' class='tick end'>{self.low:.3g}</text>"
            f"<text x='{AXIS}' y='{HEIGHT - 5}' class='tick'>step {round(self.first)}</text>"
            f"<text x='{WIDTH - 4}' y='{HEIGHT - 5}' class='tick end'>{round(self.last)}</text>"
        )


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
    colour, shape = _look(order)
    told, line = f"{model}: {number(mean)}", ""
    if low is not None and high is not None:
        told += f" [{number(low)}, {number(high)}]"
        line = f"<path d='M{at(low)},{y}H{at(high)}' stroke='{colour}' stroke-width='2'/>"
    return (
        f"<g><title>{escape(told)}</title>{line}"
        f"<path d='{MARKS[shape]}' transform='translate({at(mean)},{y})' fill='{colour}'/>"
        f"<text x='{WIDTH - RIGHT + 12}' y='{y + 4}'>{number(mean)}</text></g>"
    )


def _look(order: int) -> tuple[str, int]:
    """Colour, and number of the shape or dash: 49 look different."""
    count = len(COLOURS)
    return COLOURS[order % count], (order + order // count) % count


def _pen(order: int, width: float = 2, may_dash: bool = True) -> str:
    colour, shape = _look(order)
    dashed = f" stroke-dasharray='{DASHES[shape]}'" if may_dash and DASHES[shape] else ""
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
