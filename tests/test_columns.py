"""Columns as tables bring them: names, delimiters, decimal marks, booleans, JSON; messages about them."""

import json
import math
import re
import sys

import jax
import pytest

from foretrace import forecast as library
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.cli.forecast import command_of
from foretrace.forecast._columns import split_names
from foretrace.forecast._numbers import NumberReader


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def read(tmp_path, text, target="y", time=None, features=(), name="a.csv"):
    (tmp_path / name).write_text(text)
    source = library.open_source(tmp_path / name)
    try:
        reader = library.read_rows(source, library.Columns(target, time, features))
        return [(row.time, row.y, *row.x) for row in reader], reader
    finally:
        source.close()


TABLES = {
    "blanks around": "t, y , a b\n1, 2, 3\n2, 4, 5\n",
    "semicolons": "t;y;a b\n1;2;3\n2;4;5\n",
    "tabs": "t\ty\ta b\n1\t2\t3\n2\t4\t5\n",
    "bars": "t|y|a b\n1|2|3\n2|4|5\n",
    "Excel says": "sep=;\nt;y;a b\n1;2;3\n2;4;5\n",
    "blank lines before": "\n\nt,y,a b\n1,2,3\n\n2,4,5\n",
    "ends of Windows": "t,y,a b\r\n1,2,3\r\n2,4,5\r\n",
    "empty cells at the end": "t,y,a b\n1,2,3,\n2,4,5,,\n",
    "semicolons in a name": "t,y;z,y,a b\n1,0,2,3\n2,0,4,5\n",
    "commas in a name": "t;y, z;y;a b\n1;0,5;2;3\n2;0;4;5\n",
    "quoted": '"t","y","a b"\n"1","2","3"\n"2","4","5"\n',
    "JSON array": json.dumps([{"t": 1, "y": 2, "a b": 3}, {"t": 2, "y": 4, "a b": 5}]),
    "JSON array in lines": json.dumps([{"t": 1, "y": 2, " a b": 3}, {"t": 2, "y": 4, " a b": 5}], indent=1),
    "JSON lines": '{"t": 1, "y": 2, "a b": 3}\n{"t": 2, "y": "4", "a b": 5.0}\n',
    "JSON line by line without an end": '{"t": 1, "y": 2, "a b": 3}\n{"t": 2, "y": 4, "a b": 5}',
}


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.txt"])
@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_is_read_however_it_is_written(tmp_path, text, name):
    rows, _ = read(tmp_path, text, time="t", features=("a b",), name=name)
    assert rows == [("1", 2, 3), ("2", 4, 5)]


def test_a_table_without_any_row_that_can_be_read_says_so(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("t,y\nx\nz,")
    words = ["forecast", tmp_path / "a.csv", "--target", "y", "--hidden", 4, "--out", tmp_path / "out"]
    assert main([*map(str, words), "--on-bad", "skip"]) == 0
    said = capsys.readouterr().out
    assert "\n0 rows\n1 rows could not be read" in said and "'z,', has no end and is not learned" in said


def test_names_that_are_numbers_are_a_heading(tmp_path):
    rows, _ = read(tmp_path, "country,2019,2020\nA,1,2\n", target="2020")
    assert rows == [("", 2)]
    with pytest.raises(UserError, match="target must be among the columns country, 2019, 2020; got '2021'"):
        read(tmp_path, "country,2019,2020\nA,1,2\n", target="2021")


def test_parquet_is_read_with_its_stamps_and_booleans(tmp_path):
    import datetime

    import pyarrow
    from pyarrow import parquet

    stamps = [datetime.datetime(2024, 1, 31, hour) for hour in (22, 23)]
    table = pyarrow.Table.from_pydict({"t": stamps, " y ": [True, False], "a b": [1, None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = library.open_source(tmp_path / "a.parquet")
    rows = list(library.read_rows(source, library.Columns("y", "t", ("a b",))))
    source.close()
    assert [(row.time, row.y) for row in rows] == [("2024-01-31 22:00:00", 1), ("2024-01-31 23:00:00", 0)]
    assert rows[0].x == (1,) and math.isnan(rows[1].x[0])


def test_a_table_in_utf_16_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes("t\ty\n1\t2\n".encode("utf-16"))
    source = library.open_source(tmp_path / "a.csv")
    assert [row.y for row in library.read_rows(source, library.Columns("y", None, ()))] == [2]
    source.close()


def test_what_was_taken_is_said(tmp_path):
    _, reader = read(tmp_path, "t;y\n01/02/2024;1,5\n02/02/2024;2,5\n", time="t")
    assert reader.notes == [
        "semicolons lie between the cells",
        "commas are decimal marks",
        "times are taken for month/day/year; the data would allow another order",
    ]


HEADING = ["Power, kW", "temp", "a,b,c", "a"]
NAMES = {
    "temp": ["temp"],
    "temp,a": ["temp", "a"],
    " temp , a ,": ["temp", "a"],
    "Power, kW": ["Power, kW"],
    "Power,kW,temp": ["Power, kW", "temp"],
    '"Power, kW",a': ["Power, kW", "a"],
    "a,b,c,a": ["a,b,c", "a"],
    "Power,temp": ["Power", "temp"],
}


@pytest.mark.parametrize(("text", "names"), NAMES.items())
def test_names_of_features_may_have_commas(text, names):
    assert split_names(text, HEADING) == names


def test_a_run_with_commas_in_its_names_goes_on(tmp_path):
    (tmp_path / "a.csv").write_text('load , "Power, kW" ,b\n1,2,3\n2,3,4\n')
    words = ["--target", "load", "--features", "Power, kW,b", "--hidden", "4", "--out", tmp_path / "out"]
    assert main(["forecast", str(tmp_path / "a.csv"), *map(str, words)]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["features"] == ["Power, kW", "b"]
    assert main(["resume", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1.5", "-2", "1e3", "+.5"], [1.5, -2, 1000, 0.5]),
        (["1,5", "-2", "1,5e3", "2,125"], [1.5, -2, 1500, 2.125]),
        (["1.234,5", "1.234", "2,125"], [1234.5, 1234, 2.125]),
        (["1,234.5", "1,234", "2.125"], [1234.5, 1234, 2.125]),
        (["1,234,567"], [1_234_567]),
        (["true", "False", "YES", "no", "on", "Off"], [1, 0, 1, 0, 1, 0]),
        ([" 2 ", 3, 4.5, True, False], [2, 3, 4.5, 1, 0]),
    ],
)
@pytest.mark.parametrize("comma", [True, False])
def test_numbers_are_read_by_their_decimal_mark(texts, numbers, comma):
    reader = NumberReader(is_comma_between_cells=comma)
    assert [reader(text, "y", "line 1") for text in texts] == numbers


@pytest.mark.parametrize("text", ["", " ", "NaN", "n/a", "NULL", "?", None])
def test_unknown_cells_are_nan(text):
    assert math.isnan(NumberReader()(text, "y", "line 1"))


@pytest.mark.parametrize("texts", [["1.5", "1,5"], ["1,5", "1.5"], ["1,234"], ["1,23,456"], ["12,3.4.5"]])
def test_a_mark_that_may_mean_two_things_is_refused(texts):
    reader = NumberReader()
    with pytest.raises(
        UserError, match=r"y must be a number or empty; got .* in line 1; it is unclear which"
    ):
        for text in texts:
            reader(text, "y", "line 1")


def test_a_comma_is_a_decimal_mark_where_none_lies_between_cells():
    assert NumberReader(is_comma_between_cells=False)("1,234", "y", "line 1") == 1.234


WIDE = [f"sensor_{i}" for i in range(5000)]
MESSAGES = {
    "z": (["t", "y"], "target must be among the columns t, y; got 'z'; choose one."),
    "sensor-12": (WIDE, "the 5,000 columns, of which sensor_12, "),
    "SENSOR_4999x": (WIDE, "of which sensor_4999, "),
    "##": (WIDE, "the 5,000 columns, which begin with sensor_0, sensor_1, sensor_2; got '##'"),
    "y": (["t", "y", "y"], "target must be one column; got 'y', the name of 2 columns"),
}


@pytest.mark.parametrize(("name", "case"), MESSAGES.items())
def test_a_message_names_the_nearest_columns(name, case):
    heading, sentence = case
    with pytest.raises(UserError) as refused:
        library.Columns(name, None, ()).check(heading)
    assert sentence in str(refused.value) and len(str(refused.value)) < 200


JSON = {
    "[1, 2]\n": "a.json must be a JSON object, with names; got '1'",
    '[{"y": 1}, [2]]': "item 2 of a.json must be a JSON object, with names; got '[2]'",
    '[{"y": 1}': "a.json must be JSON, an array of objects or one object a line",
    '{"y": 1}\n2\n': "line 2 of a.json must be one JSON object; got '2'",
    '{"y": [1]}\n': "y must be a number or empty; got [1] in line 1 of a.json",
    "[]": "data must have a heading and rows; got nothing",
}


@pytest.mark.parametrize(("text", "sentence"), JSON.items())
def test_json_of_another_shape_is_refused_in_a_sentence(tmp_path, capsys, text, sentence):
    (tmp_path / "a.json").write_text(text)
    words = ["forecast", tmp_path / "a.json", "--target", "y", "--hidden", 4, "--out", tmp_path / "out"]
    assert main(list(map(str, words))) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


FILES = {
    "long.csv": (b"t,y\n1," + b"2" * 200_000 + b"\n", "long.csv must be CSV; got field larger than"),
    "latin.csv": (b"t,y,\xe4\n1,2,3\n", "latin.csv must be text in UTF-8; got other bytes"),
    "torn.csv": ("t,y\n1,2\n".encode("utf-16") + b"3", "torn.csv must be text in UTF-8; got other bytes"),
    "other.parquet": (b"no table", "other.parquet must be Parquet; got "),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}"):
        list(library.forecast_file(tmp_path / name, target="y", hidden=4))


def test_parquet_without_its_package_is_refused_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(
        UserError, match=r"not installed; got 'a.parquet'; pip install 'foretrace\[parquet\]'"
    ):
        library.forecast_file(tmp_path / "a.parquet", target="y")


def test_a_run_that_a_program_fed_is_resumed_by_it():
    with pytest.raises(
        UserError, match=r"got one that a program feeds; go on by forecast_file\(.., resume=True"
    ):
        command_of({"kind": "forecast"})
