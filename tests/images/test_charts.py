"""Charts: what is drawn is where the numbers are, and the same chart is the same file."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from score_sde.images.charts import COLOURS, HEIGHT, WIDTH, Chart, Line, histogram

SVG = "{http://www.w3.org/2000/svg}"
X = np.arange(5.0)
CHART = Chart("t", "x <", "y", (Line("a", X, 10.0**X), Line("b", X[:2], np.array([np.nan, 1e4]))), log=True)


def numbers(path):
    """The points of a path of straight lines, ``(n, 2)``; y grows downward."""
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path), float)


def strokes(text, colour=COLOURS[0]):
    """The polygons of an SVG of more than one point that are drawn in a colour, ``(n, 2)`` each."""
    nodes = ElementTree.fromstring(text).iter(f"{SVG}path")
    found = [
        numbers(n.attrib.get("d", "")) for n in nodes if f"stroke: {colour}" in n.attrib.get("style", "")
    ]
    return [points for points in found if len(points) > 1 and np.isfinite(points).all()]


def words(text):
    """The texts of an SVG."""
    return ["".join(node.itertext()) for node in ElementTree.fromstring(text).iter(f"{SVG}text")]


def test_powers_on_a_logarithmic_axis_are_a_straight_line():
    (curve,) = (line for line in strokes(CHART.svg()) if len(line) == 5)
    np.testing.assert_allclose(np.diff(curve, n=2, axis=0), 0, atol=1e-3)
    assert (np.diff(curve[:, 0]) > 0).all()
    assert (np.diff(curve[:, 1]) < 0).all()  # up on the page is down in its coordinates
    assert {"t", "x <", "y", "a", "b", "1", "10000"} <= set(words(CHART.svg()))


def test_the_picture_shows_the_curve_that_the_text_has(tmp_path):
    CHART.write_png(tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).astype(int)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    blue = np.abs(pixels - [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) < 8
    (curve,) = (line for line in strokes(CHART.svg()) if len(line) == 5)
    for column, row in (curve * WIDTH / (WIDTH * 0.72)).round().astype(int):  # 72 points to 100 pixels
        assert blue[row - 2 : row + 3, column - 2 : column + 3].any()


def test_what_is_not_finite_or_not_positive_is_left_out():
    y = np.array([1.0, np.nan, 4.0, -1.0, np.inf])
    (linear,) = (line for line in strokes(Chart("", "", "", (Line("", X, y),)).svg()))
    assert len(linear) == 3
    (log,) = (line for line in strokes(Chart("", "", "", (Line("", X, y),), log=True).svg()))
    assert len(log) == 2
    empty = Chart("t", "x", "y", (Line("a", X, np.full(5, np.nan)),))
    assert "no data yet" in words(empty.svg())
    assert "no data yet" in words(Chart("t", "x", "y", ()).svg())


def test_error_bars_reach_as_far_as_the_errors():
    error = np.array([0.5, np.nan, 1.0, np.inf, 0.0])
    lines = strokes(Chart("", "", "", (Line("", X, X, error),)).svg())
    (curve,) = (line for line in lines if len(line) == 5)
    unit = curve[0, 1] - curve[1, 1]
    bars = {round(line[0, 0], 3): np.ptp(line[:, 1]) / unit for line in lines if np.ptp(line[:, 0]) == 0}
    assert bars == pytest.approx({round(curve[0, 0], 3): 1.0, round(curve[2, 0], 3): 2.0}, abs=1e-3)


def test_columns_count_the_values():
    values = np.array([0.0, 0.1, 0.9, 1.0, 1.0, np.nan])
    root = ElementTree.fromstring(histogram("t", "x", values, bins=2).svg())
    style = f"fill: {COLOURS[0]}"
    bars = [numbers(n.attrib["d"]) for n in root.iter(f"{SVG}path") if n.attrib.get("style") == style]
    low, high = (np.ptp(bar[:, 1]) for bar in bars)
    assert high / low == pytest.approx(3 / 2, rel=1e-3)


def test_a_chart_is_the_same_text_whatever_the_users_settings(tmp_path):
    import matplotlib

    first = CHART.svg()
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": None, "lines.linewidth": 9}):
        assert CHART.svg() == first
        assert matplotlib.rcParams["font.size"] == 30  # and they are left as they were
    assert first.startswith("<svg")
    assert not re.search(r"\d{4}-\d\d-\d\d", first)  # no date
    for name in ("a.png", "b.png"):
        CHART.write_png(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "matplotlib.pyplot" not in sys.modules


def test_axes_have_plain_numbers():
    steps = np.array([0.0, 1e6, 2e6])
    found = words(Chart("", "", "", (Line("", steps, np.array([2e-3, 3e-3, 5e-2])),), log=True).svg())
    assert {"1000000", "0.01"} <= set(found)
    near = words(Chart("", "", "", (Line("", steps, 1 + 1e-4 * X[:3]),)).svg())
    assert any(word.startswith("1.0001") for word in near)  # and no offset beside the axis
    one = words(Chart("", "", "", (Line("", np.array([4.0]), np.array([3.0])),)).svg())
    assert "4" in one
    assert "4.1" not in one  # steps are whole


def test_colours_differ_for_colour_blind_readers():
    """For both kinds of red-green blindness too, as simulated by Viénot, Brettel and Mollon (1999)."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    deutan = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    for seen in (np.eye(3), protan, deutan):
        points = np.clip(linear @ seen.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + 9 * np.eye(len(COLOURS))
        assert apart.min() > 0.13
