"""Lines as they arrive: logs that begin again, garbled lines, half a line, and rows that come twice."""

import csv
import errno
import io
import json
import math
import os

import jax
import pytest

from foretrace import forecast as library
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.forecast._clock import Clock
from foretrace.forecast._rows import RowReader

LOG = ["time,load\n", *(f"2024-01-01 00:{i:02d},{i % 7}\n" for i in range(30))]


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def reader_of(lines, target="load", time=None, features=(), **options):
    source = library.CsvSource(lines, is_live=not isinstance(lines, list))
    return RowReader(source, library.Columns(target, time, features), **options)


def values_of(lines, **options):
    return [row.y for row in reader_of(lines, **options)]


def learn(lines, tmp_path, **options):
    """Learns lines as they come, and returns the values that the run has learned in all."""
    options = {"target": "load", "hidden": 4, "out": tmp_path / "out", "on_bad": "skip"} | options
    with library.forecast_file(iter(lines), **options) as forecasts:
        list(forecasts)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        return [int(row["actual"]) for row in csv.DictReader(file) if row["actual"]], forecasts


def loads(first, last):
    return [i % 7 for i in range(first, last)]


@pytest.mark.parametrize("lines", [list, iter])
def test_a_heading_that_comes_again_is_no_row(lines):
    assert values_of(lines([*LOG[:5], LOG[0], *LOG[5:8]])) == loads(0, 7)
    turned = [",".join(reversed(line.strip().split(","))) + "\n" for line in [LOG[0], *LOG[5:8]]]
    assert values_of(lines([*LOG[:5], *turned])) == loads(0, 7)
    wider = [line.strip() + ",x\n" for line in [LOG[0], *LOG[5:8]]]
    assert values_of(lines([*LOG[:5], "\n", *wider])) == loads(0, 7)


BAD = {
    "a garbled cell": ["2024-01-01 00:04,E#R\n"],
    "half a line": ["2024-01-01 00:04\n"],
    "a stray quotation mark": ['2024-01-01 00:04,"4,\n'],
    "a message": ["tail: log.csv: file truncated\n"],
    "zero bytes": ["\0\0\0\0\n"],
    "other bytes": ["2024-01-01 00:04,\udcff\n"],
    "two lines in one": ["2024-01-01 00:04,42024-01-01 00:05,5\n"],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("time", [None, "time"])
def test_what_cannot_be_read_stops_the_stream_or_is_skipped_and_counted(bad, time):
    lines = [*LOG[:5], *bad, *LOG[6:9]]
    reader = reader_of(iter(lines), time=time)
    assert [next(reader).y for _ in range(4)] == loads(0, 4)
    with pytest.raises(UserError, match=r"line 6 of the lines.*, or go on with --on-bad skip\.$"):
        next(reader)
    reader = reader_of(iter(lines), time=time, on_bad="skip")
    rows = list(reader)
    assert [row.y for row in rows if not math.isnan(row.y)] == [*loads(0, 4), *loads(5, 8)]
    assert reader.bad == 1
    if time:  # where the row is lost, its time is none that is missing
        clock = Clock("stop")
        ticks = [tick for row in rows for tick in (clock.look_ahead([row]), *clock.tick(row))[1:]]
        assert [tick.time[-2:] for tick in ticks] == [f"{i:02d}" for i in range(8)]
        assert math.isnan(ticks[4].y)


def test_a_garbled_feature_is_unknown_and_the_row_is_learned():
    (row,) = reader_of(iter(["load,a\n", "1,x\n"]), features=("a",), on_bad="skip")
    assert row.y == 1 and math.isnan(row.x[0])


@pytest.mark.parametrize("lines", [list, iter])
def test_a_last_line_without_an_end_is_not_yet_a_row(lines):
    reader = reader_of(lines([*LOG[:8], "2024-01-01 00:07,1"]))
    assert [row.y for row in reader] == loads(0, 7)
    assert "'2024-01-01 00:07,1', has no end and is not learned" in reader.notes[0]
    assert values_of(lines([line.strip() for line in LOG[:8]])) == loads(0, 7), "no line has an end"
    assert values_of(lines(["load\n", "1\n", "2", "5\n"])) == [1, 25], "pieces of a line"


def test_a_file_whose_last_line_was_half_written_goes_on(tmp_path):
    data, words = tmp_path / "a.csv", ["--target", "load", "--hidden", "4", "--out", str(tmp_path / "out")]
    data.write_text("".join(LOG[:8]) + "2024-01-01 00:07,1")
    assert main(["forecast", str(data), *words]) == 0
    data.write_text("".join(LOG[:8]) + "2024-01-01 00:07,125\n")
    assert main(["resume", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert [row["actual"] for row in csv.DictReader(file)] == [*map(str, loads(1, 7)), "125", ""]


def test_whole_json_needs_no_end_of_line():
    for last, expected in (('{"load": 2}', [1, 2]), ('{"load": 2', [1])):
        source = library.JsonLinesSource(['{"load": 1}\n', last])
        assert [row.y for row in library.read_rows(source, library.Columns("load", None, ()))] == expected


@pytest.mark.parametrize("time", [None, "time"])
def test_rows_that_come_again_are_skipped(tmp_path, time):
    assert learn(LOG[:11], tmp_path, time=time)[0] == loads(1, 10)
    # The whole log, its last rows, only new rows with and without a heading, and nothing new.
    for number, lines in enumerate(
        [LOG[:13], [LOG[0], *LOG[5:15]], [LOG[0], *LOG[15:17]], LOG[14:19], LOG[19:21], LOG[:21]]
    ):
        values, forecasts = learn(lines, tmp_path, time=time, resume=True)
        last = (12, 14, 16, 18, 20, 20)[number]
        assert values == loads(1, last)
        said = [line for line in forecasts.summary() if "rows had been learned before" in line]
        skipped = (10, 8, 0, 3, 0, 20)[number]
        assert said == ([f"{skipped} rows had been learned before and were skipped"] if skipped else [])


def test_rows_of_one_second_are_told_apart(tmp_path):
    lines = ["time,load\n", *(f"2024-01-01 00:00:0{i // 4},{i % 7}\n" for i in range(30))]
    assert learn(lines[:7], tmp_path)[0] == loads(1, 6)
    assert learn([lines[0], *lines[7:9]], tmp_path, resume=True)[0] == loads(1, 8)
    assert learn(lines[:12], tmp_path, resume=True)[0] == loads(1, 11)
    assert learn([lines[0], *lines[10:15]], tmp_path, resume=True)[0] == loads(1, 14)


def test_a_log_whose_heading_was_cut_off_is_read_where_that_is_clear(tmp_path):
    reader = reader_of(iter(LOG[3:6]))
    assert [row.y for row in reader] == loads(2, 5)
    assert reader.notes == ["no heading came: load is taken to be column 2, the only one of numbers"]
    assert [row.time[-5:] for row in reader_of(iter(LOG[3:6]), time="time")] == ["00:02", "00:03", "00:04"]
    for lines, options in [(["2024-01-01,1,2\n"], {}), (["2024-01-01,1\n"], {"features": ("a",)})]:
        with pytest.raises(UserError, match=r"must begin with a heading, .*as tail -n \+1 -F FILE"):
            reader_of(iter(lines), **options)
    with pytest.raises(UserError, match="target must be among the columns time, power"):
        reader_of(iter(["time,power\n", "1,2\n"]))
    # A resumed run knows its heading.
    lines = ["time,load,a\n", *(f"2024-01-01 00:{i:02d},{i},{i % 3}\n" for i in range(12))]
    learn(lines[:6], tmp_path, features=["a"])
    assert learn(lines[4:9], tmp_path, features=["a"], resume=True)[0] == list(range(1, 8))


@pytest.mark.parametrize("text", ["".join(LOG[:9]), "\ufeff" + "".join(LOG[:9])])
def test_standard_input_is_bytes_of_any_kind(tmp_path, monkeypatch, text):
    lines = text.encode() + b"2024-01-01 00:08,\xff\n" + "".join(LOG[10:12]).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), "utf-8"))
    words = ["--target", "load", "--time", "time", "--hidden", "4", "--out", str(tmp_path / "out")]
    assert main(["forecast", "-", *words, "--on-bad", "skip"]) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert [row["actual"] for row in csv.DictReader(file)] == [*"1234560", "", "2", "3", ""]


def test_standard_input_that_is_closed_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="got one that is closed"):
        library.standard_input()


def test_lines_of_json_arrive_on_standard_input(monkeypatch):
    lines = [json.dumps({"load": i}) + "\n" for i in range(3)]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(lines)))
    source = library.standard_input()
    assert [row.y for row in library.read_rows(source, library.Columns("load", None, ()))] == [0, 1, 2]


def test_the_count_of_bad_rows_goes_on(tmp_path, capsys):
    lines = ["load\n", "1\n", "x\n", "2\n", "3\n"]
    _, forecasts = learn(lines, tmp_path)
    assert "1 rows could not be read, or not all of their cells" in forecasts.summary()
    _, forecasts = learn(["load\n", "y\n", "4\n", "5\n"], tmp_path, resume=True)
    assert "2 rows could not be read, or not all of their cells" in forecasts.summary()


def test_a_source_that_breaks_off_is_named():
    def lines():
        yield from LOG[:4]
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(
        UserError, match=r"the lines cannot be read any more: Input/output error; go on with"
    ):
        list(library.forecast_file(lines(), target="load", hidden=4))
