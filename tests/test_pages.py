"""Pages as data and as files: what is drawn, what is kept of long streams, what foreign text may do."""

import base64
import datetime
import gzip
import html
import json
import re

import jax
import numpy as np
import pytest

from foretrace import forecast, plotting
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.experiments._noise_table import Noise, NoiseTable
from foretrace.forecast._weights import WeightHistory
from foretrace.plotting import Chart, Line
from foretrace.plotting import _forecasts as forecasts_module
from foretrace.plotting._pages import _scores
from foretrace.plotting._pages._thin import thinned
from foretrace.plotting._style import GREY, PALETTE
from test_forecast import SMALL, wave, write


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run_of(folder, values, *words, target="y"):
    """The run folder of a forecast with dates."""
    data = write(folder / "data.csv", values)
    if target != "y":
        text = data.read_text().replace("time,y", f"time,{target}", 1)
        data.write_text(text)
    options = ["--target", target, "--time", "time", "--out", str(folder / "run"), *SMALL, *words]
    assert main(["forecast", str(data), *options]) == 0
    return folder / "run"


def figures_of(page):
    """All figures of a page, and their columns, as the browser gets them."""
    content = plotting.content_of(page)["figures"]
    return content["figures"], content["columns"]


def test_the_figures_have_the_numbers_of_predictions_csv(tmp_path):
    run = run_of(tmp_path, wave(300), "--horizon", "3")
    rows = forecast.read_predictions(run / "predictions.csv")
    figures, columns = figures_of(plotting.forecast_page(run))
    lines = [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    came = [line for line in lines if line[5]]
    assert columns["actual"] == [float(line[5]) for line in came if line[1] == "1"]
    assert columns["forecast 3"][2:] == [float(line[2]) for line in came if line[1] == "3"]
    assert columns["lower 3"][:2] == [None, None] and columns["lower 3"][-1] == float(came[-1][3])
    begin = datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert columns["when"] == [1000 * (begin + 3600 * i) for i in range(299)]
    to_come = next(each for each in figures[0]["traces"] if each["name"] == "forecast to come")
    assert to_come["y"] == [float(line[2]) for line in lines[-3:]]
    assert rows.ahead_times == [line[0] for line in lines[-3:]] and not rows.partial


def test_errors_over_time_and_in_the_table_are_those_of_a_loop(tmp_path):
    values = wave(200)
    run = run_of(tmp_path, values, "--horizon", "2", "--period", "25")
    rows = forecast.read_predictions(run / "predictions.csv")
    blocks = _scores.Blocks(len(rows.times), 0)
    assert blocks.size == 50 and blocks.starts.tolist() == [0, 50, 100, 150]
    errors = _scores._rules(rows, 2, 25)
    actual = rows.actual
    for lag, name in ((2, "persistence"), (25, "seasonal naive")):
        expected = [np.nan if t < lag else abs(actual[t] - actual[t - lag]) for t in range(len(actual))]
        np.testing.assert_array_equal(errors[name], expected)
    means = [np.nanmean(errors["persistence"][i : i + 50]) for i in (0, 50, 100, 150)]
    np.testing.assert_allclose(blocks.mean(errors["persistence"]), means)
    page = plotting.forecast_page(run)
    ours = np.nanmean(abs(rows.of[2].forecast - actual))
    assert page.above[0].rows[1][1].order == pytest.approx(ours, rel=1e-6)
    share = np.mean(
        [low <= y <= up for low, y, up in zip(*rows.of[1][1:2], actual, rows.of[1].upper, strict=True)]
    )
    assert page.above[0].rows[0][-1].order == pytest.approx(share, abs=0.02)


def test_a_short_rest_of_the_rows_joins_the_block_before():
    assert _scores.Blocks(220, 0).starts.tolist() == [0, 50, 100, 150]
    assert _scores.Blocks(240, 0).starts.tolist() == [0, 50, 100, 150, 200]
    assert _scores.Blocks(24_000, 24).size % 24 == 0
    assert np.isnan(_scores.Blocks(100, 0).mean(np.full(100, np.nan))).all()


def test_long_streams_keep_their_newest_rows_extremes_and_anomalies():
    random = np.random.default_rng(0)
    actual, other = random.normal(size=(2, 100_000))
    actual[[777, 33_333]], other[12_345] = (50, -50), 80
    actual[500:600] = np.nan
    keep = np.zeros(100_000, bool)
    keep[[5, 40_001]] = True
    rows = thinned([actual, other], keep, 2000)
    assert len(rows) < 2100 and np.all(np.diff(rows) > 0)
    assert {0, 5, 777, 12_345, 33_333, 40_001, *range(99_000, 100_000)} <= set(rows.tolist())
    assert thinned([actual], keep, 100_000).tolist() == list(range(100_000))


def test_the_page_of_a_long_stream_is_small_and_says_what_it_leaves_out(tmp_path):
    run = run_of(tmp_path, wave(60))
    values = np.random.default_rng(0).normal(size=30_000).round(2)
    begin = np.datetime64("2020-01-01T00:00:00")
    stamps = (begin + 3600 * np.arange(30_000)).astype("datetime64[s]").astype(str)
    lines = [
        f"{time},1,{y + 0.1:.7g},{y - 1:.7g},{y + 1:.7g},{y},0.5000\n"
        for time, y in zip(stamps, values, strict=True)
    ]
    (run / "predictions.csv").write_text(forecast._scores.HEADING + "".join(lines))
    page = plotting.forecast_page(run)
    plotting.write_page(page, run / "report.html")
    assert (run / "report.html").stat().st_size < 3_000_000
    assert re.search(r"Of 30,000 rows 1\d,\d{3} are drawn", page.views[0].parts[0].note)
    # Rows to come were noted before these came.
    assert not forecast.read_predictions(run / "predictions.csv").ahead_times


def test_an_anomaly_is_marked_and_listed(tmp_path):
    values = wave(400)
    values[350] += 5
    page = plotting.forecast_page(run_of(tmp_path, values))
    (marks,) = (each for each in figures_of(page)[0][0]["traces"] if each["name"] == "anomaly")
    table = next(part for part in page.below if part.title == "Anomalies")
    assert values[350] in marks["y"]
    assert [row[0].text for row in table.rows if row[1].order == values[350]] == ["2026-01-15 14:00:00"]
    assert len(table.places) == len(table.rows) == len(marks["x"])
    assert all(not lower <= y <= upper for y, lower, upper in outside(table))


def outside(table):
    """Value and bounds of every listed row."""
    for row in table.rows:
        yield row[1].order, *map(float, row[3].text.split(" to "))


def test_weights_of_the_experts_are_kept_in_few_points():
    history, asked = WeightHistory(), []

    def experts(row):
        asked.append(row)
        return {"a": row / 10_000, "b": 1 - row / 10_000}

    for row in range(10_000):
        history.take(row, str(row), lambda row=row: experts(row))
    assert 200 <= len(history.times) <= 400 and len(asked) < 2500
    steps = np.diff([int(time) for time in history.times])
    assert steps.min() == steps.max() == history.every
    assert history.times[0] == "0" and int(history.times[-1]) > 10_000 - 2 * history.every
    share = int(history.times[-1]) / 10_000
    assert history.weights[-1] == pytest.approx([share, 1 - share], abs=1e-4)


def test_a_resumed_run_has_the_weights_from_before(tmp_path):
    run = run_of(tmp_path, wave(300))
    write(tmp_path / "data.csv", wave(600))
    options = ["--target", "y", "--time", "time", "--out", str(run), *SMALL, "--resume"]
    assert main(["forecast", str(tmp_path / "data.csv"), *options]) == 0
    experts = next(f for f in plotting.forecast_page(run).below if f.title == "What each expert counts for")
    when = experts.traces[0]["x"]
    assert len(when) == 4  # after the chunks of 256, 44, 256 and 44 rows
    total = np.sum([trace["y"] for trace in experts.traces], axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-3)


NASTY = "</script><script>document.title='taken'</script><b>&amp;"


def test_text_of_a_file_stays_text(tmp_path):
    run = run_of(tmp_path, wave(40), target=NASTY)
    text = (run / "report.html").read_text()
    assert "document.title" not in text.replace(html.escape(NASTY), "")
    assert f"<title>{html.escape(NASTY)}, 1 row ahead</title>" in text
    layout = figures_of(plotting.forecast_page(run))[0][0]["layout"]
    assert layout["yaxis"]["title"]["text"] == html.escape(NASTY, quote=False)


def test_a_report_is_one_file_that_asks_nobody(tmp_path):
    text = (run_of(tmp_path, wave(40)) / "report.html").read_text()
    assert re.findall(r"(?:src|href)=\S+", text.split("<script")[0]) == ['href="data:,">']
    assert "http://" not in text and "https://" not in text
    library = re.search(r'id="library">([^<]+)<', text)[1]
    assert gzip.decompress(base64.b64decode(library)).decode().lstrip().startswith("/**\n* plotly.js v")
    assert len(text) < 2_200_000


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = run_of(tmp_path, wave(40))
    before = (run / "report.html").read_bytes()
    plotting.write_page(plotting.forecast_page(run), run / "report.html")
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".report*"))


def test_rows_before_one_that_is_refused_are_drawn(tmp_path, capsys):
    values = [*wave(60), "oops"]
    data = write(tmp_path / "data.csv", values)
    assert main(["forecast", str(data), "--target", "y", "--out", str(tmp_path / "run"), *SMALL]) == 2
    assert "must be a number or empty; got 'oops'" in capsys.readouterr().err
    assert "59 rows" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_first_rows_have_a_page_too(tmp_path, rows):
    run = run_of(tmp_path, wave(rows), "--horizon", "5")
    figures, _ = figures_of(plotting.forecast_page(run))
    assert figures[0]["layout"]["xaxis"]["range"][0] <= figures[0]["layout"]["xaxis"]["range"][1]
    json.dumps(figures, allow_nan=False)


def test_unknown_values_and_rows_without_times_have_a_page(tmp_path):
    values = wave(80)
    values[20:30] = [""] * 10
    data = write(tmp_path / "data.csv", values)
    assert main(["forecast", str(data), "--target", "y", "--out", str(tmp_path / "run"), *SMALL]) == 0
    page = plotting.forecast_page(tmp_path / "run")
    figures, columns = figures_of(page)
    assert columns["when"] == list(range(2, 81)) and columns["actual"][19:29] == [None] * 10
    assert figures[0]["layout"]["xaxis"]["type"] == "linear"
    assert page.below[-1].rows == [["10 values were unknown; the forecast stood in for them"]]
    json.dumps(figures, allow_nan=False)


def test_half_a_line_at_the_end_is_left_out_and_other_text_refused(tmp_path):
    run = run_of(tmp_path, wave(40))
    path = run / "predictions.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("\n", 0, -1) + 9])
    rows = forecast.read_predictions(path)
    assert len(rows.times) == 39 and not rows.ahead_times
    path.write_text(whole + "a,b,c,d,e,f,g\n")
    with pytest.raises(UserError, match=r"predictions.csv must be as foretrace forecast wrote it"):
        forecast.read_predictions(path)


def test_a_folder_without_forecasts_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="run must be a folder of foretrace forecast; got"):
        plotting.forecast_page(tmp_path)
    with pytest.raises(
        UserError, match=r"run must be a folder of foretrace forecast --series with a check"
    ):
        plotting.fleet_page(tmp_path)
    run = run_of(tmp_path, wave(40))
    (run / "predictions.csv").write_text(forecast._scores.HEADING)
    with pytest.raises(UserError, match=r"run must have forecasts; got one whose predictions.csv has none"):
        plotting.forecast_page(run)
    (run / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"run must be a folder .*; got .*No such file"):
        plotting.forecast_page(run)


def test_the_picture_has_times_on_its_axis(tmp_path, monkeypatch):
    run = run_of(tmp_path, wave(300), "--horizon", "3")
    figures = []
    monkeypatch.setattr(forecasts_module, "save", lambda figure, path: figures.append(figure))
    rows = forecast.read_predictions(run / "predictions.csv")
    plotting.plot_forecast(rows, "y", tmp_path / "a.png")
    figures[0].draw_without_rendering()
    axis = figures[0].axes[0].xaxis
    labels = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
    assert len(labels) >= 3 and axis.get_offset_text().get_text() == "2026-Jan"
    assert set(labels) <= {f"{day:02d}" for day in range(1, 32)}


def test_a_chart_has_on_a_page_the_colours_and_numbers_that_it_has_as_a_picture():
    lines = [
        Line("ok:8", [1, 10, 100], [[1.0, 2.0, 3.0], [3.0, np.inf, 5.0]]),
        Line("floor", [1, 100], [[0.5, 0.5]], theory=True),
    ]
    page = plotting.charts_page([Chart("bits", "steps  (mean over seeds)", lines, ("x", "y"))], "title")
    (figure,), _ = figures_of(page)
    upper, lower, mean, theory = figure["traces"]
    assert mean["y"] == [2.0, 2.0, 4.0] and upper["y"][2] == 5.0 and lower["y"][0] == 1.0
    assert mean["line"]["color"] == PALETTE[0] and theory["line"]["color"] == GREY
    assert theory["line"]["dash"] != "solid" and theory["mode"] == "lines"
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    assert figure["layout"]["xaxis"]["title"]["text"] == "steps"
    assert page.below[0].note == "Mean over seeds."


def test_the_page_of_a_comparison_has_its_table(tmp_path):
    small = ["--hidden", "4", "--lanes", "2", "--steps", "100", "--seeds", "2"]
    learners = ["--learner", "uoro", "--learner", "tbptt:2"]
    assert main(["compare", "copy", *learners, *small, "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<td><span>tbptt:2</span></td>" in text and "Mean and standard deviation over seeds" in text
    figures = gzip.decompress(base64.b64decode(re.search(r'id="figures">([^<]+)<', text)[1]))
    names = [trace["name"] for trace in json.loads(figures)["figures"][0]["traces"]]
    assert names == [
        "uoro",
        "uoro",
        "uoro",
        "tbptt:2",
        "tbptt:2",
        "tbptt:2",
    ]  # two edges of a band, and a line


def test_the_page_of_a_noise_table_has_its_numbers():
    rows = (
        Noise("ok:2", 0.01, 0.001, -1e-3, 1e-4, 0.9, 12.0, 3_000_000),
        Noise("uoro", 5, 1, 0, 1, 0.1, 6.0, 1),
    )
    page = NoiseTable(rows, "exact RTRL", 0.0).page("title")
    assert [[entry.text for entry in row][:2] for row in page.above[0].rows] == [
        ["ok:2", "0.01 ± 0.001"], ["uoro", "5 ± 1"]
    ]  # fmt: skip
    (ok, uoro), ticks = page.below[0].traces, page.below[0].layout["xaxis"]["tickvals"]
    assert (ok["x"], ok["y"], uoro["x"], uoro["y"]) == ([12.0], [0.01], [6.0], [5.0])
    assert {5.0, 10.0, 20.0} <= set(ticks)
