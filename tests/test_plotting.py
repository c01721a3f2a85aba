"""Pictures: colours that stay apart for any colour vision, labels that never touch, equal bytes."""

from itertools import combinations

import numpy as np
import pytest

from foretrace import tasks
from foretrace.forecast import read_predictions
from foretrace.plotting import Chart, Line, draw_charts, plot_comparison, plot_forecast, plot_run
from foretrace.plotting import _charts as charts_module
from foretrace.plotting._labels import spread_labels
from foretrace.plotting._style import PALETTE, styles_of

# Machado, Oliveira, Fernandes 2009, severity 1; on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, vision):
    """CIE 1976 lightness and hue of a colour as somebody with that vision sees it."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_stay_apart_for_any_colour_vision(vision):
    # 2.3 is the least difference that is noticed.
    for a, b in combinations(PALETTE, 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) > 10, (a, b)


def test_every_label_has_a_style_of_its_own():
    assert len(set(PALETTE)) == len(PALETTE)
    styles = styles_of(f"learner {i}" for i in range(3 * len(PALETTE)))
    assert len({(s.color, str(s.line), s.marker) for s in styles.values()}) == len(styles)


def test_labels_keep_their_distance_and_order_and_move_as_little_as_that_takes():
    random = np.random.default_rng(0)
    for _ in range(200):
        count = int(random.integers(0, 15))
        heights, gap = random.choice([0, 0.2, 0.21, 0.5, 1, random.random()], count), 0.07
        places = spread_labels(heights, gap)
        order = np.argsort(heights, kind="stable")
        assert np.all(np.diff(places[order]) >= gap - 1e-9)
        assert count == 0 or (places.min() > -1e-9 and places.max() < 1 + 1e-9)
    apart = np.array([0.9, 0.1, 0.5])
    np.testing.assert_allclose(spread_labels(apart, 0.07), apart)
    np.testing.assert_allclose(spread_labels([0.5, 0.5, 0.5], 0.1), [0.4, 0.5, 0.6])


def drawn(charts, path, monkeypatch):
    """The figure of a picture, as it was written."""
    figures = []
    monkeypatch.setattr(charts_module, "save", lambda figure, path: figures.append(figure))
    draw_charts(charts, "title", path)
    (figure,) = figures
    figure.draw_without_rendering()
    return figure


def test_no_label_lies_on_another_whatever_is_drawn(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    for _ in range(12):
        charts = []
        for _ in range(random.integers(1, 4)):
            x = np.geomspace(1, 1000, int(random.integers(2, 12)))
            lines = []
            for i in range(random.integers(1, 13)):
                count = int(random.integers(1, len(x) + 1))
                steps = random.choice([0.1, 1, 5]) * random.normal(size=(2, count))
                walk = np.exp(np.cumsum(steps, axis=1))
                walk[random.random(walk.shape) < 0.02] = np.nan
                lines.append(Line(f"learner {i}", x[:count], walk))
            log = (("x", "y"), ("y",), ("x",), ())[random.integers(4)]
            points = bool(random.random() < 0.3)
            charts.append(Chart("title", "x", lines, log, floor=1e-3, ceiling=1e3, points=points))
        figure = drawn(charts, tmp_path / "a.png", monkeypatch)
        names = [text for axes in figure.axes for text in axes.texts]
        assert len(names) == sum(len(chart.lines) for chart in charts)
        renderer = figure.canvas.get_renderer()
        # The text alone, without the line that leads to it.
        boxes = [type(name).__bases__[0].get_window_extent(name, renderer) for name in names]
        for (a, one), (b, other) in combinations(zip(names, boxes, strict=True), 2):
            assert not one.padded(-2).overlaps(other.padded(-2)), (a, b)


def test_a_line_that_leaves_the_frame_is_named_where_it_leaves(tmp_path, monkeypatch):
    steady = Line("steady", range(1, 100), [np.ones(99)])
    leaves = Line("leaves", range(1, 100), [np.geomspace(1e-2, 1e6, 99)])
    figure = drawn(
        [Chart("title", "x", [steady, leaves], ("y",), floor=1e-3, ceiling=1e3)],
        tmp_path / "a.png", monkeypatch,
    )  # fmt: skip
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert places["steady"] > 1 and places["leaves"] < 0


def test_a_diverged_seed_is_marked_where_it_was_last_finite(tmp_path, monkeypatch):
    y = [[1.0, 2.0, 3.0], [1.0, np.nan, np.nan]]
    figure = drawn([Chart("title", "steps", [Line("a", [1, 2, 3], y)], ())], tmp_path / "a", monkeypatch)
    (cross,) = (line for line in figure.axes[0].lines if line.get_marker() == "x")
    assert cross.get_xydata().tolist() == [[1.0, 1.0]]
    assert figure.axes[0].get_xlabel() == "steps   (cross: a seed diverged)"


def pictures(folder):
    """Draws every kind of picture twice; yields pairs of files."""
    records = [
        {"step": 100 * i, "bits": 1 / i, "T": i, "raised": {"T": [[i, 100 * i - 50]]}, "valid": 2 / i}
        for i in range(1, 6)
    ]
    rows = [f"{i},{h},{i % 7},{i % 7 - 1},{i % 7 + 1},{i % 5},0" for i in range(1, 40) for h in (1, 3)]
    rows += [f"{40 + h},{h},1,0,2,," for h in (1, 3)]
    (folder / "rows.csv").write_text("\n".join(["time,horizon,forecast,low,high,value,error", *rows]))
    curves = {label: ([1, 10, 20], np.ones((2, 3)) * i) for i, label in enumerate(("ok:8", "uoro"), 1)}
    chart = Chart("title", "x", [Line("a", [1, 2], [[1, 2]]), Line("b", [1, 2], [[2, 2]], True)])
    draws = {
        "run": lambda path: plot_run(records, tasks.copy(), "copy", path),
        "loss": lambda path: plot_run([{"step": 1, "squared_error": 1.0}], tasks.adding(), "adding", path),
        "comparison": lambda path: plot_comparison(curves, tasks.anbn().loss_metric, "anbn", path),
        "forecast": lambda path: plot_forecast(read_predictions(folder / "rows.csv"), "load", path),
        "charts": lambda path: draw_charts([chart] * 4, "title", path),
    }
    for name, draw in draws.items():
        paths = folder / f"{name}.png", folder / f"{name}-again.png"
        for path in paths:
            draw(path)
        yield paths


def test_every_picture_is_a_png_whose_bytes_depend_on_its_data_alone(tmp_path):
    for path, again in pictures(tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
        assert path.read_bytes() == again.read_bytes()
