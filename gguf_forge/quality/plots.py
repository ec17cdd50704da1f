"""Plots of few points as SVG, to stand in an HTML page. The vertical axis is logarithmic. Knows no models."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 130, 14, 40
#: Between two lines of text, and the width of a letter, about.
LINE, LETTER = 12, 6
#: Told apart also by those who do not see red and green alike (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800")


@dataclass(frozen=True)
class Series:
    """Points, (x, y) with y above zero, and what they are called."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Frame:
    """Where values stand on the plot."""

    x: tuple[float, float]
    y: tuple[float, float]

    @classmethod
    def around(cls, series: Sequence[Series]) -> _Frame:
        xs = [x for one in series for x, _ in one.points]
        ys = [y for one in series for _, y in one.points]
        low, high = min(xs), max(xs)
        margin = 0.06 * (high - low) or max(0.5, abs(high) * 0.1)
        return cls((low - margin, high + margin), (math.log10(min(ys)) - 0.1, math.log10(max(ys)) + 0.1))

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def scatter(series: Sequence[Series], x_axis: str, y_axis: str) -> str:
    """A dot for each point, with its name at its side."""
    frame = _Frame.around(series)
    parts = list(_axes(frame, x_axis, y_axis))
    names = []
    for i, one in enumerate(series):
        for x, y in one.points:
            px, py = frame.place(x, y)
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour(i)}">{_title(one, x, y)}</circle>')
            names.append((py + 4, px + 8, _short(one.name)))
    told: list[tuple[float, float, str]] = []
    for y, x, name in sorted(names):  # downwards, below those that stand in the way
        near = [at for at, left, other in told if left < x + LETTER * len(name) and x < left + LETTER * len(other)]
        told.append((max([y, *(at + LINE for at in near if y < at + LINE)]), x, name))
    parts += [f'<text x="{x:.1f}" y="{y:.1f}">{name}</text>' for y, x, name in told]
    return _drawn(parts)


def curves(series: Sequence[Series], x_axis: str, y_axis: str) -> str:
    """A line through the points of each series, with its name at its end."""
    frame = _Frame.around(series)
    parts = list(_axes(frame, x_axis, y_axis))
    ends = []
    for i, one in enumerate(series):
        places = [frame.place(x, y) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(i)}" stroke-width="1.5">'
            f"<title>{html.escape(one.name)}</title></polyline>"
        )
        ends.append((places[-1][1], one.name, colour(i)))
    last = -math.inf
    for y, name, shade in sorted(ends):
        last = max(y + 4, last + LINE)
        parts.append(f'<text x="{WIDTH - RIGHT + 6}" y="{last:.1f}" style="fill:{shade}">{_short(name)}</text>')
    return _drawn(parts)


def colour(number: int) -> str:
    """The colour of the so-manyth series."""
    return COLOURS[number % len(COLOURS)]


def _title(one: Series, x: float, y: float) -> str:
    return f"<title>{html.escape(one.name)}: {x:.4g}, {y:.4g}</title>"


def _short(name: str) -> str:
    return html.escape(name if len(name) <= 20 else f"{name[:8]}..{name[-10:]}")


def _drawn(parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>' + "".join(parts) + "</svg>"


def _axes(frame: _Frame, x_axis: str, y_axis: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<path class="axis" d="M{LEFT} {TOP} V{bottom} H{right}"/>'
    for x in _steps(*frame.x):
        at = frame.place(x, 10 ** frame.y[0])[0]
        yield f'<path class="axis" d="M{at:.1f} {bottom} v4"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>'
    for y in _decades(*frame.y):
        at = frame.place(frame.x[0], y)[1]
        yield f'<path class="axis" d="M{LEFT} {at:.1f} H{right}" stroke-dasharray="2 4"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_axis)}</text>'
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 12 {middle})" text-anchor="middle"'
    yield f'<text x="12" y="{middle}" {turned}>{html.escape(y_axis)}</text>'


def _steps(low: float, high: float) -> Iterator[float]:
    """Round numbers from low to high, some five of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield round(i * step, 12)


def _decades(low: float, high: float) -> Iterator[float]:
    """1, 2 and 5 of each decade, of a wide range 1 only."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    for power in range(math.floor(low), math.floor(high) + 1):
        for factor in factors:
            if low <= math.log10(factor) + power <= high:
                yield float(f"{factor}e{power}")
