"""Charts of curves and columns, as SVG text or as a picture, drawn by matplotlib without its global state."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 640, 360  # pixels
_DPI = 100

# Okabe and Ito, https://jfly.uni-koeln.de/color/: distinct to colour-blind readers.  Markers and dashes tell
# curves apart in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_MOST_MARKERS = 60  # more points than this on a curve are drawn without markers


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
      log: logarithmic vertical axis; values that are not positive are left out.
      bars: draw columns down to the axis instead of curves.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log: bool = False
    bars: bool = False

    def svg(self) -> str:
        """An ``<svg>`` element; the same chart always gives the same text."""
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with _figure(self) as figure:
            figure.savefig(text, format="svg", metadata=nothing)
        whole = text.getvalue()
        return whole[whole.index("<svg") :].rstrip()  # an XML declaration has no place within a page

    def write_png(self, path: Path) -> None:
        """The same as a picture of ``WIDTH x HEIGHT`` pixels."""
        with _figure(self) as figure:
            figure.savefig(path, format="png", metadata={"Software": None})


def histogram(title: str, x_label: str, values: np.ndarray, bins: int = 30) -> Chart:
    """Counts of values, of which those that are not finite are left out."""
    values = np.asarray(values, np.float64)
    counts, edges = np.histogram(values[np.isfinite(values)], bins)
    centres = (edges[:-1] + edges[1:]) / 2
    return Chart(title, x_label, "examples", (Line("", centres, counts.astype(float)),), bars=True)


@contextmanager
def _figure(chart: Chart) -> Iterator["Figure"]:
    """The chart drawn, while our settings hold instead of those of the user's matplotlib."""
    import matplotlib  # a few tenths of a second, which only those pay who draw
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "axes.axisbelow": True,
                "axes.grid": True,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.titlesize": 11,
                "font.size": 10,
                "grid.color": "#dddddd",
                "legend.fontsize": 9,
                "lines.linewidth": 1.5,
                "lines.markersize": 4,
                "svg.fonttype": "none",  # text stays text: small, and found by a search of the page
                "svg.hashsalt": "score_sde",  # the same chart is the same text
            }
        )
        figure = Figure((WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, layout="constrained")
        _draw(chart, figure.add_subplot())
        yield figure


def _draw(chart: Chart, axes: "Axes") -> None:
    axes.set_title(chart.title)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    curves = [(line, *_finite(line, chart.log)) for line in chart.lines]
    curves = [curve for curve in curves if len(curve[1])]
    if not curves:
        axes.text(0.5, 0.5, "no data yet", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    if chart.log:
        axes.set_yscale("log", nonpositive="clip")
    for i, (line, x, y, error) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        bars = np.where(error > 0, error, np.nan) if (error > 0).any() else None
        if chart.bars:
            width = 0.9 * float(np.diff(np.sort(x)).min()) if len(x) > 1 else 0.9
            axes.bar(x, y, width, yerr=bars, color=colour, label=line.name)
        else:
            marker = _MARKERS[i % len(_MARKERS)] if len(x) <= _MOST_MARKERS else ""
            dashes = _DASHES[i // len(COLOURS) % len(_DASHES)]
            axes.errorbar(
                x, y, bars, color=colour, marker=marker, linestyle=dashes, capsize=2, label=line.name
            )
    _label_numbers(axes, chart.log, whole=all((x == np.round(x)).all() for _, x, _, _ in curves))
    if len(curves) > 1:
        axes.legend(framealpha=0.8)


def _label_numbers(axes: "Axes", log: bool, whole: bool) -> None:
    """Plain numbers on the axes: 20000 and 0.001, no offsets, and no fractions of whole steps."""
    from matplotlib.ticker import LogFormatter, MaxNLocator

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""  # it knows which ticks have room for a number

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1))
    axes.ticklabel_format(axis="x", useOffset=False, scilimits=(-4, 7))
    if log:
        axes.yaxis.set_major_formatter(Plain())
        axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(2.5, 0.5)))
    else:
        axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 7))


def _finite(line: Line, positive: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points that can be drawn, and lengths of their error bars, 0 where that is not known."""
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    error = np.zeros(len(x)) if line.error is None else np.asarray(line.error, np.float64)
    error = np.where(np.isfinite(error), error, 0.0)
    keep = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not positive))
    return x[keep], y[keep], error[keep]
