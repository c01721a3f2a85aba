"""Many series of one table: each is forecast as it would be alone."""

import csv
import datetime
import re

import jax
import numpy as np
import pytest

from foretrace import plotting
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.forecast import _side_by_side, forecast_file
from foretrace.runs._signals import StopSignal

SMALL = {"target": "y", "time": "t", "horizon": 3, "hidden": 4}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def series_of(name, rows, start=0, period=7.0):
    """Lines of one series, each with the hour at which it comes."""
    noise = np.random.default_rng(len(name)).normal(size=rows)
    begin = datetime.datetime(2026, 1, 5)
    for i in range(rows):
        time = begin + datetime.timedelta(hours=start + i)
        yield start + i, f"{name},{time},{10 + np.sin(i / period) + 0.1 * noise[i]:.4f}\n"


SERIES = {
    "meter 1": list(series_of("meter 1", 200)),
    "begins later": list(series_of("begins later", 150, start=40)),
    "ends, early": [(i, line.replace("ends", '"ends', 1).replace("early", 'early"', 1)) for i, line in
                    series_of("ends, early", 90)],
    "one row": list(series_of("one row", 1, start=20)),
}  # fmt: skip


def table(names=tuple(SERIES)):
    rows = sorted((row for name in names for row in SERIES[name]), key=lambda row: row[0])
    return ["id,t,y\n", *(line for _, line in rows)]


def forecasts_of(rows):
    by_name = {}
    for row in rows:
        by_name.setdefault(row.series, []).append(row)
    return by_name


def test_each_series_is_forecast_as_it_is_alone():
    fleet = forecast_file(table(), series="id", **SMALL)
    together = forecasts_of(fleet)
    assert fleet.series == list(dict.fromkeys(row[0] for row in csv.reader(table()[1:])))
    for name in SERIES:
        alone = forecast_file(table([name]), **SMALL)
        for a, b in zip(together[name], alone, strict=True):
            assert (a.time, a.actual) == (b.time, b.actual)
            np.testing.assert_allclose(a.forecast, b.forecast, rtol=2e-3, atol=2e-3)
        assert [ahead.time for ahead in fleet.ahead(name)] == [ahead.time for ahead in alone.ahead()]
    scores = {each.series: each for each in fleet.table()}
    assert scores["meter 1"].rows == 200 and scores["meter 1"].ratio < 1
    assert np.isnan(scores["one row"].ratio)


def test_lines_that_arrive_are_forecast_as_a_file_is():
    whole = forecasts_of(forecast_file(table(), series="id", **SMALL))
    live = forecasts_of(forecast_file(iter(table()), series="id", **SMALL))
    for name, rows in whole.items():
        for a, b in zip(rows, live[name], strict=True):
            np.testing.assert_allclose(a.forecast, b.forecast, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("is_live", [False, True])
def test_a_fleet_that_was_stopped_goes_on_bit_for_bit(tmp_path, is_live, monkeypatch):
    monkeypatch.setattr("foretrace.forecast._fleet.FleetForecasts._rows_at_once", 64)
    lines = iter if is_live else list
    list(forecast_file(lines(table()), series="id", out=tmp_path / "whole", **SMALL))
    stop = StopSignal()
    first = forecast_file(lines(table()), series="id", out=tmp_path / "parts", stop=stop, **SMALL)
    for number, _ in enumerate(first):
        if number == 130:
            stop.signal = 15
    assert first.learned < 300
    again = forecast_file(lines(table()), series="id", out=tmp_path / "parts", resume=True, **SMALL)
    assert len(list(again)) + first.learned == 441
    texts = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "parts")]
    assert texts[0] == texts[1]


def test_the_command_writes_one_file_and_says_which_do_best(tmp_path, capsys):
    data, out = tmp_path / "meters.csv", tmp_path / "out"
    data.write_text("".join(table()))
    words = ["--target", "y", "--time", "t", "--series", "id", "--horizon", "2", "--hidden", "4"]
    assert main(["forecast", str(data), *words, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "441 rows of 4 series" in said
    assert "better than persistence in" in said and "best: " in said
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert list(rows[0])[:3] == ["series", "time", "horizon"]
    assert {row["series"] for row in rows} == set(SERIES)
    ahead = [row for row in rows if row["series"] == "meter 1"][-2:]
    assert [row["actual"] for row in ahead] == ["", ""]
    assert (out / "report.html").exists()
    shown = plotting.fleet_page(out).above[0].rows
    assert {row[0] for row in shown} == set(SERIES)
    assert not (out / "predictions.parquet").exists()
    assert main(["resume", str(out)]) == 0


def test_of_parquet_the_predictions_are_parquet_too(tmp_path):
    import pyarrow
    from pyarrow import parquet

    cells = list(csv.DictReader("".join(table()).splitlines()))
    rows = [
        {"id": row["id"], "t": datetime.datetime.fromisoformat(row["t"]), "y": float(row["y"])}
        for row in cells
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "meters.parquet")
    out = tmp_path / "out"
    list(forecast_file(tmp_path / "meters.parquet", series="id", out=out, **SMALL))
    lines = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    written = parquet.read_table(out / "predictions.parquet")
    assert written.column_names == list(lines[0])
    assert pyarrow.types.is_timestamp(written.schema.field("time").type)
    for line, row in zip(lines, written.to_pylist(), strict=True):
        assert row["series"] == line["series"] and row["horizon"] == int(line["horizon"])
        for name in ("prediction", "lower", "upper", "actual"):
            assert row[name] == (float(line[name]) if line[name] else None)


@pytest.mark.parametrize(
    "lines, options, words",
    [
        (table(), {"series": "meter"}, "series must be among the columns id, t, y; got 'meter'"),
        ([*table(["meter 1"]), table(["meter 1"])[-1]], {"series": "id"}, "id 'meter 1': time must rise"),
        (table(), {"series": "id", "from_checkpoint": "x"}, "from_checkpoint must be left out with series"),
        (
            table(),
            {"series": "id", "share": (2, 2)},
            "share must be (i, n) with 0 <= i < n, and series a col",
        ),
        (
            iter(table()),
            {"series": "id", "share": (0, 2)},
            "share must be left out for rows that arrive one",
        ),
        (
            table(),
            {"series": "id", "resume": True},
            "out must be the folder of the run to resume; got None",
        ),
        (
            table(),
            {"from_checkpoint": "nowhere"},
            "from_checkpoint must be a run folder of a forecast; got 'now",
        ),
        (table(), {"cell": "elman"}, "cell must be one of diagonal, elstm, gru"),
        (table(), {"gaps": "skip"}, "gaps must be stop, fill or ignore; got 'skip'; choose one."),
        (3, {}, "source must be a path, a Source or lines of text; got 3."),
    ],
)
def test_bad_input_is_one_sentence(no_types, lines, options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        list(forecast_file(lines, **SMALL, **options))


def test_parts_that_are_not_equally_far_are_no_fleet(tmp_path):
    parts = [tmp_path / "far", tmp_path / "less far"]
    for part, lines in zip(parts, (table(), table()[:-20]), strict=True):
        list(forecast_file(lines, series="id", out=part, **SMALL))
    with pytest.raises(UserError, match="gather must be parts that have learned the same rows; got some"):
        list(forecast_file(table(), series="id", gather=parts, out=tmp_path / "all", **SMALL))


def test_a_fleet_beyond_the_memory_is_refused_with_what_it_needs(monkeypatch):
    monkeypatch.setattr(_side_by_side, "_memory", lambda: 1_000_000)
    with pytest.raises(UserError, match=r"memory of 0.0 GB; got 1 of .* kB each; split the table"):
        list(forecast_file(table(), series="id", **SMALL))


def test_a_gap_in_one_series_is_filled_in_that_one():
    lines = table(["meter 1", "begins later"])
    del lines[100]
    filled = forecast_file(lines, series="id", gaps="fill", **SMALL)
    list(filled)
    assert any(words.startswith("1 of these times were missing") for words in filled.irregularities())
