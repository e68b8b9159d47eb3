"""Small line charts, as SVG text or as a picture, without a plotting library."""

import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 36, 48
_COLOURS = ("#1f5fa8", "#c8501e", "#2e8b57", "#7d3c98", "#8d6e00", "#555555")

_Mark = tuple[str, list[tuple[float, float]], str, str]  # kind, points in pixels, text, colour


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
      x, y: ``(n,)`` numbers; a point that is not finite is left out.
      error: ``(n,)`` half lengths of error bars, or None.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None


@dataclass(frozen=True)
class Chart:
    """Curves against common axes.

    Attributes:
      log: logarithmic vertical axis, for positive values.
      bars: draw columns down to the axis instead of curves.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log: bool = False
    bars: bool = False

    def svg(self) -> str:
        """An ``<svg>`` element."""
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            'font-family="sans-serif" font-size="14" xmlns="http://www.w3.org/2000/svg">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]
        for kind, points, text, colour in self._marks():
            if kind == "line":
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            elif kind == "box":
                (x, y), (right, low) = points
                size = f'width="{right - x:.1f}" height="{max(low - y, 0):.1f}"'
                parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"/>')
            else:
                x, y = points[0]
                anchor = {"left": "start", "right": "end", "centre": "middle"}[kind]
                parts.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="middle" '
                    f'fill="{colour}">{html.escape(text)}</text>'
                )
        return "\n".join([*parts, "</svg>"])

    def write_png(self, path: Path) -> None:
        """The same as a picture."""
        image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        draw = ImageDraw.Draw(image)
        for kind, points, text, colour in self._marks():
            if kind == "line":
                draw.line(points, fill=colour, width=2)
            elif kind == "box":
                (x, y), (right, low) = points
                draw.rectangle((x, y, right, max(low, y)), fill=colour)
            else:
                anchor = {"left": "lm", "right": "rm", "centre": "mm"}[kind]
                draw.text(points[0], text, fill=colour, anchor=anchor)
        image.save(path)

    def _marks(self) -> list[_Mark]:
        """What to draw."""
        curves = [(line, *_finite(line, self.log)) for line in self.lines]
        curves = [curve for curve in curves if len(curve[1])]
        marks: list[_Mark] = [("centre", [((_LEFT + WIDTH) / 2, _TOP / 2)], self.title, "#000000")]
        marks.append(("centre", [((_LEFT + WIDTH) / 2, HEIGHT - 12)], self.x_label, "#333333"))
        if not curves:
            return [*marks, ("centre", [(WIDTH / 2, HEIGHT / 2)], "no data yet", "#777777")]
        xs = np.concatenate([x for _, x, _, _ in curves])
        ends = [y + s * e for _, _, y, e in curves for s in (-1, 1)]
        ys = np.concatenate([*ends, [0.0]]) if self.bars else np.concatenate(ends)
        if self.log:
            ys = ys[ys > 0]
        low_x, high_x = _widened(float(xs.min()), float(xs.max()), 0.5 / len(xs) if self.bars else 0.0)
        low, high = float(ys.min()), float(ys.max())
        low, high = (math.log10(low), math.log10(high)) if self.log else (low, high)
        low, high = _widened(low, high, 0.0 if self.bars else 0.05)

        def across(x: float) -> float:
            return _LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - _LEFT - _RIGHT)

        def down(y: float) -> float:
            y = math.log10(max(y, 1e-300)) if self.log else y
            y = min(max(y, low), high)
            return _TOP + (high - y) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

        bottom = HEIGHT - _BOTTOM
        for value in ticks(10**low, 10**high, log=True) if self.log else ticks(low, high):
            marks.append(("line", [(_LEFT, down(value)), (WIDTH - _RIGHT, down(value))], "", "#dddddd"))
            marks.append(("right", [(_LEFT - 6, down(value))], f"{value:.5g}", "#333333"))
        for value in ticks(low_x, high_x):
            marks.append(("line", [(across(value), bottom), (across(value), bottom + 4)], "", "#333333"))
            marks.append(("centre", [(across(value), bottom + 16)], f"{value:.7g}", "#333333"))
        marks.append(("left", [(4, _TOP / 2)], self.y_label, "#333333"))
        rising = sum(down(y[-1]) - down(y[0]) for _, _, y, _ in curves) < 0  # names go where curves do not
        names = ("left", _LEFT + 8) if rising else ("right", WIDTH - _RIGHT - 4)
        for i, (line, x, y, error) in enumerate(curves):
            colour = _COLOURS[i % len(_COLOURS)]
            points = [(across(a), down(b)) for a, b in zip(x, y, strict=True)]
            if self.bars:
                half = (WIDTH - _LEFT - _RIGHT) / max(len(x), 1) / 2 * 0.9
                marks += [("box", [(a - half, b), (a + half, bottom)], "", colour) for a, b in points]
            else:
                marks.append(("line", points, "", colour))
                marks += [("box", [(a - 2, b - 2), (a + 2, b + 2)], "", colour) for a, b in points]
            for a, b, e in zip(x, y, error, strict=True):
                if e > 0:
                    bar = [(across(a), down(b - e)), (across(a), down(b + e))]
                    marks.append(("line", bar, "", colour))
            if len(curves) > 1:
                marks.append((names[0], [(names[1], _TOP + 8 + 16 * i)], line.name, colour))
        marks.append(("line", [(_LEFT, _TOP), (_LEFT, bottom), (WIDTH - _RIGHT, bottom)], "", "#333333"))
        return marks


def ticks(low: float, high: float, *, log: bool = False) -> list[float]:
    """Round numbers from ``low`` to ``high``, three to eight: where an axis is labelled.

    Args:
      log: for a logarithmic axis, with ``low`` positive: powers of ten; with fewer than three of those, also
        twice and five times them; below one decade, as on a linear axis.
    """
    if log and high > 10 * low:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1,), (1, 2, 5)):
            values = [float(f"{factor}e{power}") for power in powers for factor in factors]
            values = [value for value in values if low <= value <= high]
            if len(values) >= 3:
                return values[:: math.ceil(len(values) / 8)]
    power = math.floor(math.log10(high - low))
    steps = [float(f"{factor}e{p}") for p in (power, power - 1) for factor in (5, 2.5, 2, 1)]

    def inside(step: float) -> range:
        return range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)

    step = next((step for step in steps if len(inside(step)) > 3), steps[-1])
    return [min(max(float(f"{i * step:.12g}"), low), high) for i in inside(step)]


def histogram(title: str, x_label: str, values: np.ndarray, bins: int = 30) -> Chart:
    """Counts of values, of which those that are not finite are left out."""
    values = np.asarray(values, np.float64)
    counts, edges = np.histogram(values[np.isfinite(values)], bins)
    centres = (edges[:-1] + edges[1:]) / 2
    return Chart(title, x_label, "examples", (Line("", centres, counts.astype(float)),), bars=True)


def _finite(line: Line, positive: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    error = np.zeros(len(x)) if line.error is None else np.nan_to_num(np.asarray(line.error, np.float64))
    keep = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not positive))
    return x[keep], y[keep], error[keep]


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    width = high - low
    if width <= 0:
        width = abs(high) * 0.1 or 1.0
        return low - width / 2, high + width / 2
    return low - margin * width, high + margin * width
