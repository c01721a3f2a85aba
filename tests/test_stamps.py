"""Time stamps: every usual form, one robust step, the calendar, and what comes after the last row."""

import csv
import datetime
import io
import itertools
import math
import zoneinfo
from decimal import Decimal

import jax
import numpy as np
import pandas as pd
import pytest

from foretrace import forecast as library
from foretrace._checks import UserError
from foretrace.forecast._clock import Clock
from foretrace.forecast._stamps import StampReader


def rows_of(stamps, values=None):
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(["t", "y"])
    out.writerows(zip(stamps, values or itertools.count(), strict=False))
    text.seek(0)
    return list(library.read_rows(library.CsvSource(text), library.Columns("y", "t", ())))


def clock_after(stamps, gaps="stop"):
    """The clock after a file of these stamps, and the rows that it let through."""
    clock, rows = Clock(gaps), rows_of(stamps)
    clock.look_ahead(rows)
    return clock, [tick for row in rows for tick in clock.tick(row)]


def ahead(stamps, steps=3):
    clock, _ = clock_after(stamps)
    return [clock.ahead(step) for step in range(1, steps + 1)]


# Stamps, and by hand the three that come after.
FORMS = {
    "month starts": (["2020-11-01", "2020-12-01"], ["2021-01-01", "2021-02-01", "2021-03-01"]),
    "before 1970": (["1949-11-01", "1949-12-01"], ["1950-01-01", "1950-02-01", "1950-03-01"]),
    "month ends": (["2023-11-30", "2023-12-31", "2024-01-31"], ["2024-02-29", "2024-03-31", "2024-04-30"]),
    "the 15th": (["2023-11-15", "2023-12-15"], ["2024-01-15", "2024-02-15", "2024-03-15"]),
    "the 30th": (
        ["2022-11-30", "2022-12-30", "2023-01-30", "2023-02-28", "2023-03-30"],
        ["2023-04-30", "2023-05-30", "2023-06-30"],
    ),
    "quarters": (["2023-07-01", "2023-10-01"], ["2024-01-01", "2024-04-01", "2024-07-01"]),
    "quarter ends": (["2023-09-30", "2023-12-31"], ["2024-03-31", "2024-06-30", "2024-09-30"]),
    "years": (["2018-01-01", "2019-01-01", "2020-01-01"], ["2021-01-01", "2022-01-01", "2023-01-01"]),
    "29 February": (["2020-02-29", "2021-02-28"], ["2022-02-28", "2023-02-28", "2024-02-29"]),
    "numbers of years": (["2018", "2019"], ["2020", "2021", "2022"]),
    "months only": (["2023-11", "2023-12"], ["2024-01", "2024-02", "2024-03"]),
    "compact months": (["202311", "202312"], ["202401", "202402", "202403"]),
    "slashed months": (["11/2023", "12/2023"], ["01/2024", "02/2024", "03/2024"]),
    "dotted months": (["11.2023", "12.2023"], ["01.2024", "02.2024", "03.2024"]),
    "names of months": (["Nov 2023", "Dec 2023"], ["Jan 2024", "Feb 2024", "Mar 2024"]),
    "full names": (["November 2023", "December 2023"], ["January 2024", "February 2024", "March 2024"]),
    "short years": (["Nov-23", "Dec-23"], ["Jan-24", "Feb-24", "Mar-24"]),
    "quarters by name": (["2023Q3", "2023Q4"], ["2024Q1", "2024Q2", "2024Q3"]),
    "quarters first": (["Q3 2023", "Q4 2023"], ["Q1 2024", "Q2 2024", "Q3 2024"]),
    "weeks": (["2023-W51", "2023-W52"], ["2024-W01", "2024-W02", "2024-W03"]),
    "days": (["2024-02-27", "2024-02-28"], ["2024-02-29", "2024-03-01", "2024-03-02"]),
    "compact days": (["20240130", "20240131"], ["20240201", "20240202", "20240203"]),
    "days of the year": (["2023-364", "2023-365"], ["2024-001", "2024-002", "2024-003"]),
    "day first": (["30.01.2024", "31.01.2024"], ["01.02.2024", "02.02.2024", "03.02.2024"]),
    "month first": (["1/30/2024", "1/31/2024"], ["2/1/2024", "2/2/2024", "2/3/2024"]),
    "day first, slashes": (["30/01/24", "31/01/24"], ["01/02/24", "02/02/24", "03/02/24"]),
    "year first, short": (["24-01-30", "24-01-31"], ["24-02-01", "24-02-02", "24-02-03"]),
    "day and name": (["30-JAN-24", "31-JAN-24"], ["01-FEB-24", "02-FEB-24", "03-FEB-24"]),
    "name and day": (["Jan 30, 2024", "Jan 31, 2024"], ["Feb 01, 2024", "Feb 02, 2024", "Feb 03, 2024"]),
    "weekdays": (
        ["2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09", "2024-01-10", "2024-01-11"],
        ["2024-01-12", "2024-01-15", "2024-01-16"],
    ),
    "T and Z": (
        ["2024-02-29T22:00:00Z", "2024-02-29T23:00:00Z"],
        ["2024-03-01T00:00:00Z", "2024-03-01T01:00:00Z", "2024-03-01T02:00:00Z"],
    ),
    "minutes": (
        ["2024-12-31 23:30", "2024-12-31 23:45"],
        ["2025-01-01 00:00", "2025-01-01 00:15", "2025-01-01 00:30"],
    ),
    "hours only": (["2024-12-31 22", "2024-12-31 23"], ["2025-01-01 00", "2025-01-01 01", "2025-01-01 02"]),
    "24 o'clock": (
        ["31.12.2024 23:00", "31.12.2024 24:00"],
        ["01.01.2025 01:00", "01.01.2025 02:00", "01.01.2025 03:00"],
    ),
    "am and pm": (
        ["12/31/2024 10:00 PM", "12/31/2024 11:00 PM"],
        ["1/1/2025 12:00 AM", "1/1/2025 1:00 AM", "1/1/2025 2:00 AM"],
    ),
    "compact time": (
        ["20241231T2330", "20241231T2345"], ["20250101T0000", "20250101T0015", "20250101T0030"]
    ),
    "14 digits": (
        ["20241231235800", "20241231235900"], ["20250101000000", "20250101000100", "20250101000200"]
    ),
    "web log": (
        ["[31/Dec/2024:23:58:00 +0000]", "[31/Dec/2024:23:59:00 +0000]"],
        [f"[01/Jan/2025:00:0{i}:00 +0000]" for i in range(3)],
    ),
    "mail": (
        ["Tue, 30 Jan 2024 12:00:00 +0000", "Wed, 31 Jan 2024 12:00:00 +0000"],
        ["Thu, 01 Feb 2024 12:00:00 +0000", "Fri, 02 Feb 2024 12:00:00 +0000",
         "Sat, 03 Feb 2024 12:00:00 +0000"],
    ),
    "local days": (
        ["2024-03-29T00:00:00+01:00", "2024-03-30T00:00:00+01:00", "2024-03-31T00:00:00+01:00",
         "2024-04-01T00:00:00+02:00"],
        ["2024-04-02T00:00:00+02:00", "2024-04-03T00:00:00+02:00", "2024-04-04T00:00:00+02:00"],
    ),
    "milliseconds": (
        ["2024-01-01 00:00:00.250", "2024-01-01 00:00:00.500"],
        ["2024-01-01 00:00:00.750", "2024-01-01 00:00:01.000", "2024-01-01 00:00:01.250"],
    ),
    "nanoseconds": (
        ["2024-01-01T00:00:00.123456788Z", "2024-01-01T00:00:00.123456789Z"],
        [f"2024-01-01T00:00:00.12345679{i}Z" for i in range(3)],
    ),
    "epoch": (["1704067200", "1704067260"], ["1704067320", "1704067380", "1704067440"]),
    "epoch, halves": (["1704067200.0", "1704067200.5"], ["1704067201.0", "1704067201.5", "1704067202.0"]),
    "epoch, ms": (["1704067200001", "1704067260001"], ["1704067320001", "1704067380001", "1704067440001"]),
    "epoch, us": (["1704067200000000", "1704067200000001"], [f"170406720000000{i}" for i in (2, 3, 4)]),
    "epoch, ns": (["1704067200000000000", "1704067200000000001"],
                  [f"170406720000000000{i}" for i in (2, 3, 4)]),
    "epoch of month starts": (
        ["1698796800", "1701388800", "1704067200"], ["1706745600", "1709251200", "1711929600"]
    ),
    "numbers": (["7", "8"], ["9", "10", "11"]),
    "tenths": (["0.1", "0.2", "0.3"], ["0.4", "0.5", "0.6"]),
    "decimal commas": (["0,5", "1,0"], ["1,5", "2,0", "2,5"]),
}  # fmt: skip


@pytest.mark.parametrize(("stamps", "expected"), FORMS.values(), ids=FORMS)
def test_stamps_go_on_by_the_calendar_in_their_own_form(stamps, expected):
    assert ahead(stamps) == expected
    clock, ticks = clock_after([*stamps, *expected])
    assert [row.time for row in ticks] == [*stamps, *expected]
    assert (clock.filled, clock.dropped) == (0, 0)


# Python reads these itself; ours is compared with its `timestamp`.
@pytest.mark.parametrize(
    "text",
    ["2024-01-31", "20240131", "2024-01-31 12:34:56", "2024-01-31T12:34:56.789", "20240131T123456",
     "2024-01-31T12:34:56+05:30", "2024-01-31T12:34:56-08:00", "2024-01-31T12:34:56Z", "2024-W05-3",
     "1905-02-28 23:59:59.5"],
)  # fmt: skip
def test_instants_are_those_of_python(text):
    read = datetime.datetime.fromisoformat(text)
    utc = read if read.tzinfo else read.replace(tzinfo=datetime.UTC)
    assert float(StampReader()(text).when) == utc.timestamp()


@pytest.mark.parametrize(
    "text", ["", "x", "None", "2024-13-01", "2024-02-30", "2024-01-01 25:00", "12:00", "99.99.2024", "nan",
             "inf", "Foo 2024", "13:00 PM"],
)  # fmt: skip
def test_what_is_no_stamp_is_none(text):
    assert StampReader()(text) is None


def test_the_order_of_day_and_month_follows_from_the_stamps():
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(i) for i in range(20)]
    for form in ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%y"):
        stamps = [day.strftime(form) for day in days]
        assert ahead(stamps, 1) == [datetime.date(2024, 1, 21).strftime(form)]


def test_numbers_that_look_like_months_are_numbers():
    assert ahead([str(n) for n in range(202_395, 202_420)], 1) == ["202420"]


def test_jitter_gaps_and_stray_rows_do_not_move_the_step():
    begin = datetime.datetime(2024, 1, 1)
    seconds = [60 * k + (k % 7 == 3) for k in range(60)] + [3600]
    seconds = sorted({*seconds, 721, 1201} - {1800, 1861})
    stamps = [str(begin + datetime.timedelta(seconds=s)) for s in seconds]
    clock, ticks = clock_after(stamps, "fill")
    assert clock.ahead(1) == "2024-01-01 01:01:00"
    assert (clock.filled, clock.dropped) == (2, 2)
    assert [row.time for row in ticks if math.isnan(row.y)] == [
        "2024-01-01 00:30:00",
        "2024-01-01 00:31:00",
    ]


def test_the_step_follows_a_clock_that_changes_its_rate():
    begin = datetime.datetime(2024, 1, 1)
    seconds = [*range(0, 6000, 60), *range(6000, 30_000, 300)]
    clock = Clock("ignore")
    for row in rows_of([begin + datetime.timedelta(seconds=s) for s in seconds]):
        clock.look_ahead([row])
        list(clock.tick(row))
    assert clock.ahead(1) == str(begin + datetime.timedelta(seconds=30_000))


CHANGES = {
    "Europe/Berlin": ("2024-03-30", "2024-10-26"),
    "America/New_York": ("2024-03-09", "2024-11-02"),
    "Australia/Sydney": ("2024-04-06", "2024-10-05"),
}


@pytest.mark.parametrize(("name", "days"), CHANGES.items())
@pytest.mark.parametrize("minutes", [5, 60])
def test_a_clock_that_goes_to_summer_time_and_back_has_no_gaps(name, days, minutes):
    zone = zoneinfo.ZoneInfo(name)
    for day in days:
        begin = datetime.datetime.fromisoformat(day).replace(hour=12, tzinfo=zone).astimezone(datetime.UTC)
        utc = [begin + datetime.timedelta(minutes=minutes * i) for i in range(24 * 60 // minutes)]
        stamps = [when.astimezone(zone).strftime("%Y-%m-%d %H:%M") for when in utc]
        for gaps in ("stop", "fill"):
            clock, ticks = clock_after(stamps, gaps)
            assert [row.time for row in ticks] == stamps
            assert clock.changes == 1


def test_a_missing_hour_at_another_time_is_a_gap():
    stamps = [f"2024-03-30 {hour:02d}:00" for hour in (0, 1, 3, 4)]
    with pytest.raises(UserError, match="got 2024-03-30 03:00 after 2024-03-30 01:00, 1 missing"):
        clock_after(stamps)
    _, ticks = clock_after(stamps, "fill")
    assert [row.time for row in ticks] == [f"2024-03-30 {hour:02d}:00" for hour in range(5)]


def test_a_missing_month_is_one_row_and_a_missing_weekend_none():
    months = [f"{2020 + k // 12}-{k % 12 + 1:02d}-01" for k in range(30)]
    _, ticks = clock_after([month for month in months if month != "2021-02-01"], "fill")
    assert [row.time for row in ticks] == months
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(i) for i in range(40)]
    work = [str(day) for day in days if day.weekday() < 5]
    _, ticks = clock_after([day for day in work if day != "2024-01-17"], "fill")
    assert [row.time for row in ticks] == work


def test_no_more_is_filled_in_than_there_are_rows():
    stamps = [str(n) for n in [*range(300), 700]]
    _, ticks = clock_after(stamps, "fill")
    assert len(ticks) == 701
    with pytest.raises(
        UserError, match=r"401 missing; 401 would be filled in among 300 rows, too many: repair the data"
    ):
        clock_after([*stamps[:-1], "701"], "fill")
    # Many small gaps count together.
    with pytest.raises(UserError, match="too many"):
        clock_after([str(n) for n in [*range(200), *range(200, 800, 11)]], "fill")


def test_a_stamp_that_comes_again_is_refused_or_dropped():
    with pytest.raises(UserError, match="time must rise from row to row; got 20240131 after 20240131"):
        clock_after(["20240130", "20240131", "20240131"])
    clock, ticks = clock_after(["20240130", "20240131", "20240131", "20240201"], "fill")
    assert [row.y for row in ticks] == [0, 1, 3] and clock.dropped == 1


def test_a_clock_goes_on_from_its_json():
    stamps = [f"2024-0{m}-01" for m in range(1, 9)]
    clock = Clock()
    for row in rows_of(stamps[:5]):
        clock.look_ahead([row])
        list(clock.tick(row))
    import dataclasses
    import json

    clock = Clock.of(json.loads(json.dumps(dataclasses.asdict(clock))), "stop")
    assert clock.ahead(2) == "2024-07-01"
    for row in rows_of(stamps[5:]):
        clock.look_ahead([row])
        assert [tick.time for tick in clock.tick(row)] == [row.time]


def test_numbers_are_exact():
    (row,) = rows_of(["1704067200000000001"])
    assert row.when == Decimal("1704067200.000000001") and row.dated
    (row,) = rows_of(["0.1"])
    assert row.when == Decimal("0.1") and not row.dated


@pytest.mark.parametrize(
    "stamps",
    [
        [f"{2018 + k // 12}-{k % 12 + 1:02d}-01" for k in range(36)],
        [f"{d:02d}.01.2024 12:00" for d in range(1, 29)],
        [datetime.date(2024, 1, d).strftime("%b %d, %Y") for d in range(1, 29)],
    ],
)
def test_pandas_reads_the_times_of_the_predictions(tmp_path, stamps):
    (tmp_path / "a.csv").write_text("")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("t", "y"), *((stamp, k % 5) for k, stamp in enumerate(stamps))])
    with jax.numpy_dtype_promotion("standard"):
        options = {"target": "y", "time": "t", "hidden": 4, "horizon": 2}
        list(library.forecast_file(tmp_path / "a.csv", **options, out=tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    times = pd.to_datetime(table["time"], dayfirst="." in stamps[0])
    steps = np.diff(np.unique(times.to_numpy())) / np.timedelta64(1, "D")
    assert ((steps == 1) | ((steps >= 28) & (steps <= 31))).all() and len(steps) == len(stamps)
