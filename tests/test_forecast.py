"""`foretrace forecast` as its user meets it: files, lines as they arrive, bad input, going on."""

import csv
import datetime
import io
import json
import math
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from foretrace import forecast as library
from foretrace.cli import main
from foretrace.runs._signals import StopSignal
from foretrace.stream import ForecastResult as Result

SMALL = ["--hidden", "4"]


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def write(path, values, start="2026-01-01 00:00:00", step=3600, extra=None):
    begin = datetime.datetime.fromisoformat(start)
    times = [begin + datetime.timedelta(seconds=step * i) for i in range(len(values))]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["time", "y", *(extra or {})])
        for index, (when, value) in enumerate(zip(times, values, strict=True)):
            out.writerow([when, value, *(column[index] for column in (extra or {}).values())])
    return path


def wave(n):
    noise = np.random.default_rng(0).normal(size=n)
    return [round(float(v), 4) for v in 10 + np.sin(np.arange(n) / 4) + 0.05 * noise]


def forecast(*words):
    return main(["forecast", *map(str, words), *SMALL])


def predictions(folder):
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def test_a_file_is_forecast_and_compared(tmp_path, capsys):
    data, out = write(tmp_path / "a.csv", wave(300)), tmp_path / "out"
    assert forecast(data, "--target", "y", "--time", "time", "--horizon", 3, "--out", out) == 0
    rows = predictions(out)
    assert rows[0]["time"] == "2026-01-01 01:00:00"
    assert [row["horizon"] for row in rows[-3:]] == ["1", "2", "3"]
    assert rows[-1]["time"] == "2026-01-13 14:00:00" and rows[-1]["actual"] == ""
    said = [
        abs(float(r["prediction"]) - float(r["actual"]))
        for r in rows
        if r["horizon"] == "3" and r["actual"]
    ]
    assert len(said) == 297
    text = capsys.readouterr().out
    mean = next(line for line in text.splitlines() if line.startswith("3 ahead: mean absolute error"))
    assert float(mean.split()[5]) == pytest.approx(np.mean(said), rel=1e-3)
    # A season of 24 rows is usual for hours: its rule has forecasts from the second day on.
    own = float(mean.split("over 276 of them, where ours is ")[1].split(";")[0])
    assert own == pytest.approx(np.mean(said[-276:]), rel=1e-3)
    assert "seasonal naive" in mean and "better than" in text
    assert (out / "forecast.png").stat().st_size > 10_000
    assert all(0 <= float(row["anomaly"]) <= 1 for row in rows if row["anomaly"])


@pytest.mark.parametrize("rows", [20, 30])
def test_a_file_shorter_than_a_season_has_errors_beside_persistence(tmp_path, capsys, rows):
    forecast(
        write(tmp_path / "a.csv", wave(rows)), "--target", "y", "--time", "time", "--out", tmp_path / "o"
    )
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "mean absolute error" in line)
    assert f"over {rows - 1} values; persistence " in line
    assert ("seasonal naive" in line) == (rows > 24)
    assert ("over 6 of them" in line) == (rows > 24)


def test_each_rule_is_compared_on_its_own_rows():
    keeper = library.ScoreKeeper(2, 3)
    y = [1.0, 5.0, 2.0, math.nan, 7.0, 3.0, 8.0, 8.5]
    forecasts = [[10.0 + t, 20.0 + t] for t in range(len(y))]
    for value, now in zip(y, forecasts, strict=True):
        keeper.add("", value, Result(np.zeros(2), np.array(now), np.zeros(2), np.zeros(2), np.zeros(())))
    one, two = keeper.scores()
    known = [t for t in range(1, 8) if not math.isnan(y[t])]
    last = [forecasts[t - 1][0] if math.isnan(v) else v for t, v in enumerate(y)]
    assert one.rules["persistence"].rows == 6
    assert one.rules["persistence"].ours == pytest.approx(
        np.mean([abs(y[t] - forecasts[t - 1][0]) for t in known])
    )
    assert one.rules["persistence"].error == pytest.approx(
        np.mean([abs(y[t] - last[t - 1]) for t in known])
    )
    season = [t for t in known if t >= 3]
    assert one.rules["seasonal naive"].rows == len(season)
    assert one.rules["seasonal naive"].error == pytest.approx(
        np.mean([abs(y[t] - last[t - 3]) for t in season])
    )
    assert two.rules["seasonal naive"].ours == pytest.approx(
        np.mean([abs(y[t] - forecasts[t - 2][1]) for t in season])
    )


def test_who_is_worse_than_persistence_says_so(tmp_path, capsys):
    walk = np.cumsum(np.random.default_rng(3).normal(size=60)).tolist()
    forecast(write(tmp_path / "a.csv", walk), "--target", "y", "--out", tmp_path / "out")
    text = capsys.readouterr().out
    keeper = library.ScoreKeeper(1, 0, errors={"persistence": [[1, 1.0, 2.0]]}, counts=[1], inside=[1])
    assert any("does NOT beat persistence" in line for line in library.summary(keeper))
    ours, rule = (
        float(text.split(word)[1].split()[0].rstrip(";"))
        for word in ("mean absolute error ", "persistence ")
    )
    assert ("does NOT beat persistence" in text) == (ours > rule)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_files_give_the_same(tmp_path, kind):
    values = wave(40)
    write(tmp_path / "a.csv", values)
    rows = [
        {"time": r["time"], "y": float(r["y"])}
        for r in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    ]
    other = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), other)
    for name in ("a.csv", other.name):
        assert (
            forecast(tmp_path / name, "--target", "y", "--time", "time", "--out", tmp_path / f"out-{name}")
            == 0
        )
    assert predictions(tmp_path / "out-a.csv") == predictions(tmp_path / f"out-{other.name}")


def test_a_run_goes_on_where_the_file_goes_on(tmp_path, capsys):
    values, extra = wave(80), {"a": wave(80)[::-1]}
    whole, part = write(tmp_path / "whole.csv", values, extra=extra), tmp_path / "part.csv"
    options = ["--target", "y", "--time", "time", "--features", "a", "--horizon", 2]
    forecast(whole, *options, "--out", tmp_path / "one")
    write(part, values[:50], extra=extra)
    forecast(part, *options, "--out", tmp_path / "two")
    write(part, values, extra=extra)
    assert forecast(part, *options, "--out", tmp_path / "two", "--resume") == 0
    one, two = predictions(tmp_path / "one"), predictions(tmp_path / "two")
    assert one == two
    assert "goes on after row 50" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["switch", "counter", "integers"])
def test_every_forecast_lies_inside_its_interval_which_is_empty_at_first(tmp_path, kind):
    t = np.arange(300)
    values = {"switch": (t // 37) % 2, "counter": t % 97, "integers": np.round(5 + 3 * np.sin(t / 5))}[kind]
    forecast(write(tmp_path / "a.csv", values.tolist()), "--target", "y", "--out", tmp_path / "out")
    rows = predictions(tmp_path / "out")
    assert [row["lower"] + row["upper"] for row in rows[:2]] == ["", ""]
    bounds = [[float(row[name]) for name in ("lower", "prediction", "upper")] for row in rows[2:]]
    assert all(lower <= value <= upper and lower < upper for lower, value, upper in bounds)


def test_a_horizon_beyond_the_data_has_no_interval(tmp_path, capsys):
    data = write(tmp_path / "a.csv", wave(8))
    forecast(data, "--target", "y", "--horizon", 9, "--out", tmp_path / "out")
    assert all(row["lower"] == "" for row in predictions(tmp_path / "out") if row["horizon"] == "9")
    forecast(write(data, [1.0]), "--target", "y", "--out", tmp_path / "one")
    assert "no interval yet" in capsys.readouterr().out


def test_a_series_far_from_zero_has_its_digits_in_the_file_and_the_report(tmp_path, capsys):
    for offset in (0, 48_000_000):
        values = [round(offset + value, 4) for value in wave(60)]
        forecast(write(tmp_path / "a.csv", values), "--target", "y", "--out", tmp_path / str(offset))
    near, far = (predictions(tmp_path / name) for name in ("0", "48000000"))
    for name in ("prediction", "lower", "upper", "actual"):
        pairs = [(float(a[name]), float(b[name])) for a, b in zip(near, far, strict=True) if a[name]]
        np.testing.assert_allclose([b - 48_000_000 for _, b in pairs], [a for a, _ in pairs], atol=2e-3)
    assert (
        f"next, 61: {far[-1]['prediction']}, 90% interval {far[-1]['lower']} to" in capsys.readouterr().out
    )


def test_a_file_that_has_changed_is_refused(tmp_path, capsys):
    values, data = wave(40), tmp_path / "a.csv"
    forecast(write(data, values), "--target", "y", "--out", tmp_path / "out")
    before = (tmp_path / "out" / "predictions.csv").read_text()
    write(data, [values[0] + 1, *values[1:]])
    assert forecast(data, "--target", "y", "--out", tmp_path / "out", "--resume") == 2
    assert "data must begin with the 40 rows that were seen before; got others" in capsys.readouterr().err
    kept = before.splitlines()[:-1]
    assert (tmp_path / "out" / "predictions.csv").read_text().splitlines() == kept


def test_a_model_forecasts_elsewhere_without_learning(tmp_path):
    data = write(tmp_path / "a.csv", wave(60))
    forecast(data, "--target", "y", "--horizon", 2, "--out", tmp_path / "one")
    other = write(tmp_path / "b.csv", wave(30))
    words = [other, "--from-checkpoint", tmp_path / "one", "--out", tmp_path / "two"]
    assert main(["forecast", *map(str, words)]) == 0
    assert len([r for r in predictions(tmp_path / "two") if r["horizon"] == "2" and r["actual"]]) == 28
    from safetensors.numpy import load_file

    states = [
        load_file(max((tmp_path / name / "checkpoints").glob("step-*")) / "state.safetensors")
        for name in ("one", "two")
    ]
    same = {k for k in states[0] if np.array_equal(states[0][k], states[1][k])}
    assert {k for k in states[0] if "params" in k or "linear" in k or "experts" in k} <= same
    assert not {k for k in states[0] if "recent" in k} <= same


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        ("time,y\n1,2\n", ["--target", "z"], "target must be among the columns time, y; got 'z'"),
        (
            "time,y\n1,2\n",
            ["--target", "y", "--time", "t"],
            "time must be among the columns time, y; got 't'",
        ),
        ("time,y\n1,2\n", ["--target", "y", "--features", "a"], "features must be among"),
        ("time,y\n1,2\n", [], "target must be a column of the data; got none"),
        ("", ["--target", "y"], "data must have a heading and rows; got nothing"),
        ("time,y\n", ["--target", "y"], "data must have rows; got only a heading"),
        (
            "time,y\n1,2\n2,x\n",
            ["--target", "y"],
            "y must be a number or empty; got 'x' in line 3 of a.csv",
        ),
        ("time,y\n1,2\n2,inf\n", ["--target", "y"], "y must be finite or empty; got 'inf' in line 3"),
        (
            "time,y\n1,2\n2\n",
            ["--target", "y"],
            "line 3 of a.csv must have 2 cells, like the heading; got 1",
        ),
        ("time,y\n1,2\nx,3\n", ["--target", "y", "--time", "time"], "time must be a date such as"),
        (
            "time,y\n1,2\n1,3\n",
            ["--target", "y", "--time", "time"],
            "time must rise from row to row; got 1 after 1",
        ),
        (
            "time,y\n1,2\n2,3\n5,3\n",
            ["--target", "y", "--time", "time"],
            "time must go on in equal steps; got 5 after 2, 2 missing",
        ),
        (
            "time,y\n1,2\n",
            ["--target", "y", "--horizon", "0"],
            "horizon must be an int from 1 to 1000; got 0",
        ),
        ("time,y\n1,2\n", ["--target", "y", "--coverage", "1"], "coverage must be above 0 and below 1"),
        ("a\0b", ["--target", "y"], "must be text; got a zero byte"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, capsys, text, words, sentence):
    (tmp_path / "a.csv").write_text(text)
    assert forecast(tmp_path / "a.csv", *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error and error.startswith("foretrace: ")


def test_rows_before_a_bad_one_are_kept(tmp_path, capsys):
    data, values = tmp_path / "a.csv", wave(30)
    write(data, [*values[:20], "oops", *values[21:]])
    options = ["--target", "y", "--out", tmp_path / "out"]
    assert forecast(data, *options) == 2
    write(data, values)
    assert forecast(data, *options, "--resume") == 0
    assert "goes on after row 20" in capsys.readouterr().out
    assert len([r for r in predictions(tmp_path / "out") if r["actual"]]) == 29


def test_gaps_are_filled_and_repetitions_dropped_if_wanted(tmp_path, capsys):
    data = tmp_path / "a.csv"
    data.write_text("t,y\n1,5\n2,6\n2,9\n3,\n6,5\n7,6\n")
    assert forecast(data, "--target", "y", "--time", "t", "--gaps", "fill", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "3 values were unknown" in said and "2 of these times were missing" in said
    assert "1 rows repeated a time" in said
    rows = predictions(tmp_path / "out")
    assert [(row["time"], row["actual"]) for row in rows] == [
        ("2", "6"), ("3", ""), ("4", ""), ("5", ""), ("6", "5"), ("7", "6"), ("8", "")
    ]  # fmt: skip


def test_lines_are_forecast_as_they_arrive_and_sigterm_saves(tmp_path):
    words = ["forecast", "-", "--target", "y", "--out", str(tmp_path / "out"), *SMALL]
    start = [sys.executable, "-c", "import sys; from foretrace.cli import main; sys.exit(main())", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(start, **pipes, env=os.environ)
    process.stdin.write("y\n")
    for value in (1.0, 2.0, 3.0):
        process.stdin.write(f"{value}\n")
        process.stdin.flush()
        answer = process.stdout.readline().split(",")
        assert answer[1] == "1" and math.isfinite(float(answer[2]))
    time.sleep(2)  # it answers before it has written a row down; a busy machine takes its time
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "stopped after 3 rows; go on with: foretrace forecast -" in error
    again = subprocess.run(
        [*start, "--resume"], input="y\n4\n", capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert "goes on after row 3" in again.stderr
    assert [row["actual"] for row in predictions(tmp_path / "out")] == ["2", "3", "4", ""]


class Counter:
    """A source that is neither a file nor text."""

    name, is_live = "the counter", True

    def columns(self):
        return ["y"]

    def rows(self, columns):
        for number in range(8):
            yield f"number {number}", {"y": number % 3}

    def close(self):
        self.closed = True


def test_any_source_is_forecast_from_python_and_goes_on(tmp_path):
    options = {"target": "y", "hidden": 4, "out": tmp_path / "out"}
    source = Counter()
    with library.forecast_file(source, **options) as forecasts:
        first = [next(forecasts) for _ in range(5)]
    assert source.closed and forecasts.learned == 5
    assert [row.actual for row in first] == [0, 1, 2, 0, 1]
    again = library.forecast_file(Counter(), **options, resume=True)
    assert again.learned == 5
    assert len(list(again)) == 8
    assert again.ahead()[0].time == "14"
    assert again.scores()[0].rules.keys() == {"persistence"}
    assert len(predictions(tmp_path / "out")) == 13


def test_rows_are_read_from_text_as_it_is():
    columns = library.Columns("y", "t", ("a",))
    text = io.StringIO("t,a,y\n2026-01-01,1,NA\n2026-01-02,,2.5\n")
    first, second = library.read_rows(library.CsvSource(text), columns)
    assert math.isnan(first.y) and first.x == (1.0,) and first.dated
    assert second.y == 2.5 and math.isnan(second.x[0])
    assert second.when - first.when == 86400


def test_signals_that_the_parent_ignores_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal(interrupt_waits=True) as wish:
            signal.raise_signal(signal.SIGINT)
            assert wish.signal is None
            signal.raise_signal(signal.SIGTERM)
            assert wish.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
