"""Progressive errors on real streams, beside simple rules, River's models and statsforecast's.

    python benchmarks/streams.py [--nab DIR] [--data DIR] [--rows N] [--only NAME ..] [--out FILE]

Every model forecasts each value before it sees it. The figure is the mean absolute error over all values
but the first, at more than one row ahead the mean over all of them. Where a model has nothing to say yet,
persistence speaks for it. foretrace runs with its defaults, and sees the dates that a stream has; "without
dates", at the farthest horizon, it does not. The others are told the seasons. Coverage is the share of the
values in foretrace's intervals (90% are asked for) after the first 500 rows, at every eleventh row.

AirlinePassengers, WaterFlow and TrumpApproval come with River. Where they are installed, vega_datasets has
hourly temperatures (means over many years: there is no weather in them) and pmdarima a half-hourly load.
`--nab` names a folder with the files of the Numenta Anomaly Benchmark, `--data` one with CSV files of your
own, columns `time` and `value`. A stream that is not there is skipped by name. statsforecast and deep-river
take part where they are installed.
"""

import argparse
import collections
import csv
import datetime
import functools
import itertools
import json
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from river import datasets, linear_model, optim, preprocessing, time_series

from foretrace.experiments._bench import environment
from foretrace.river import RecurrentForecaster, RecurrentRegressor

try:  # peers where they are installed, never dependencies
    from statsforecast.models import MSTL, AutoETS
except ImportError:
    MSTL = AutoETS = None
try:
    from deep_river.regression import LSTMRegressor
except ImportError:
    LSTMRegressor = None

NAB = ("machine_temperature_system_failure", "ambient_temperature_system_failure",
       "cpu_utilization_asg_misconfiguration")  # fmt: skip
CYCLES = 86400, 7 * 86400, 365.25 * 86400  # seconds of a day, a week and a year
LAGS = 12
BEGINNING, EVERY = 500, 11  # rows before coverage counts, and from one of them to the next
WINDOW = 4  # long seasons that statsforecast's models are fitted to


class Stream(NamedTuple):
    """A stream and what the other models are told of it.

    Attributes:
        name: of the stream.
        y: (n,), its values.
        seasons: rows of each, the shorter one first.
        times: the dates, None if the stream has none.
        xs: features of each value, None if there are none.
        horizons: how many rows ahead are forecast.
    """

    name: str
    y: np.ndarray
    seasons: tuple[int, ...]
    times: list[datetime.datetime] | None = None
    xs: list[dict] | None = None
    horizons: tuple[int, ...] = (1, 12, 24)

    def first(self, rows: int | None) -> "Stream":
        """The first rows alone."""
        return self._replace(y=self.y[:rows], times=self.times and self.times[:rows])

    def places(self) -> np.ndarray:
        """Number of each row by the clock on the wall, so that a gap moves no season, (n,)."""
        if self.times is None:
            return np.arange(len(self.y))
        seconds = np.array([when.replace(tzinfo=datetime.UTC).timestamp() for when in self.times])
        steps = np.diff(seconds)
        return np.concatenate([[0], np.cumsum(np.round(steps / np.median(steps)))])


# Streams.


def streams(nab, data):
    """Every stream that is there."""
    airline, water = list(datasets.AirlinePassengers()), list(datasets.WaterFlow())
    trump = list(datasets.TrumpApproval())
    yield Stream("Airline", values(airline), (12,), [x["month"] for x, _ in airline])
    yield Stream("WaterFlow", values(water), (24, 168), [x["Time"] for x, _ in water])
    yield Stream("Trump", values(trump), (7,), xs=[x for x, _ in trump], horizons=(1,))
    try:
        from vega_datasets import data as vega
    except ImportError:
        print("Seattle temperatures: skipped, vega_datasets is not installed")
    else:
        table = vega.seattle_temps()
        yield Stream("Seattle", table.temp.to_numpy(), (24, 168), table.date.tolist())
    try:
        from pmdarima.datasets import load_taylor
    except ImportError:
        print("Taylor's load: skipped, pmdarima is not installed")
    else:
        yield Stream("Taylor", np.asarray(load_taylor(), float), (48, 336))
    for folder, names in ((nab, NAB), (data, None)):
        if folder is None:
            continue
        for path in sorted(folder.glob("*.csv")) if names is None else [folder / f"{n}.csv" for n in names]:
            if path.exists():
                yield from_file(path)
            else:
                print(f"{path.stem}: skipped, not in {folder}")


def values(rows):
    """The targets of a data set of River."""
    return np.array([y for _, y in rows], float)


def from_file(path):
    """The stream of a CSV file with dates and values; its seasons are the two shortest cycles."""
    with path.open() as file:
        rows = [(row.get("timestamp") or row["time"], float(row["value"])) for row in csv.DictReader(file)]
    times = [datetime.datetime.fromisoformat(when) for when, _ in rows]
    step = np.median([(b - a).total_seconds() for a, b in itertools.pairwise(times)])
    seasons = [n for n in (round(cycle / step) for cycle in CYCLES) if n > 1][:2]
    y = np.array([value for _, value in rows])
    return Stream(path.stem, y, tuple(seasons) or (1,), times)


# What a model said: (n, H), after each value of the next H, NaN for nothing.


def rule(stream, horizon, period):
    """The newest value of the same place in the season; with a period of 1 persistence."""
    said = np.full((len(stream.y), horizon), math.nan)
    for h in range(1, horizon + 1):
        back = period * math.ceil(h / period) - h
        said[back:, h - 1] = stream.y[: max(len(stream.y) - back, 0)]
    return said


def one_by_one(model, stream, horizon):
    """Of a forecaster of River."""
    said = np.full((len(stream.y), horizon), math.nan)
    for t, value in enumerate(stream.y):
        model.learn_one(float(value))
        try:
            ahead = model.forecast(horizon=horizon)
        except (ArithmeticError, IndexError, ValueError, TypeError):
            continue
        said[t] = [v if v is not None and abs(v) < 1e12 else math.nan for v in ahead]
    return said


def regression(stream, horizon, make):
    """Of a regressor for every row ahead, on the last changes, the seasons before and the clock.

    Changes are in units of their mean size so far; waves need no scale.
    """
    y, places = stream.y, stream.places()
    sizes = np.cumsum(abs(np.diff(y, prepend=y[0])))
    units = np.maximum(sizes / np.maximum(np.arange(len(y)), 1), 1e-12)
    models = [make() for _ in range(horizon)]

    def features(t, h):
        x = {"one": 1.0} | {f"lag{i}": (y[t - i] - y[t - i - 1]) / units[t] for i in range(LAGS)}
        for n in stream.seasons:
            back = n * math.ceil(h / n) - h
            if back <= t:
                x[f"season{n}"] = (y[t - back] - y[t]) / units[t]
            for k in (1, 2, 3):
                angle = 2 * math.pi * k * (places[t] + h) / n
                x |= {f"cos{n}.{k}": math.cos(angle), f"sin{n}.{k}": math.sin(angle)}
        return x

    said = np.full((len(y), horizon), math.nan)
    for t in range(LAGS, len(y)):
        for h, model in enumerate(models, start=1):
            if t - h >= LAGS:
                model.learn_one(features(t - h, h), (y[t] - y[t - h]) / units[t - h])
                said[t, h - 1] = y[t] + units[t] * model.predict_one(features(t, h))
    return said


def refitted(stream, horizon, *, decomposes):
    """Of AutoETS, refitted once a season (each row of a season below 24); of MSTL if it decomposes.

    Between two fits the parameters and the seasons stay, and the state goes on with each value.
    """
    y, short = stream.y, stream.seasons[0]
    said = np.full((len(y), horizon), math.nan)
    every = short if short >= 24 else 1
    for begin in range(2 * short + 1, len(y), every):
        past = y[:begin][-WINDOW * max(stream.seasons) :]
        seasons = [n for n in stream.seasons if len(past) > 2 * n]
        ahead = np.zeros(every + horizon)
        if decomposes:
            model = MSTL(season_length=seasons).fit(past)
            parts, ets = model.model_, model.trend_forecaster
            past = (parts["trend"] + parts["remainder"]).to_numpy()
            columns = [name for name in parts.columns if name.startswith("seasonal")]
            for name, season in zip(columns, seasons, strict=True):
                ahead += parts[name].to_numpy()[-season:][np.arange(len(ahead)) % season]
        else:
            ets = AutoETS(season_length=short).fit(past)
        for i, t in enumerate(range(begin - 1, min(begin - 1 + every, len(y)))):
            residuals = np.concatenate([past, y[begin : t + 1] - ahead[:i]])
            said[t] = ets.forward(y=residuals, h=horizon)["mean"] + ahead[i : i + horizon]
    return said


class OneStep:
    """deep-river's LSTM over the last 10 values, or changes, as a forecaster of the next value."""

    def __init__(self, *, changes):
        # The target is standardised, a raw one it would never reach.
        lstm = preprocessing.TargetStandardScaler(LSTMRegressor(n_features=1, window_size=10))
        self.model = preprocessing.StandardScaler() | lstm
        self.changes, self.last = changes, [0.0, 0.0]

    def learn_one(self, y):
        """Learns the next value."""
        self.model.learn_one(self._features(), y - self.changes * self.last[0])
        self.last = [y, self.last[0]]

    def forecast(self, horizon):
        """The next value, as a list."""
        ahead = self.changes * self.last[0] + self.model.predict_one(self._features())
        return [ahead] + [math.nan] * (horizon - 1)

    def _features(self):
        return {"x": self.last[0] - self.changes * self.last[1]}


def rivals(stream):
    """Functions by name; each says what it says of up to `horizon` rows ahead."""
    season = stream.seasons[0]

    def river(make):
        return lambda horizon: one_by_one(make(), stream, horizon)

    def holt_winters(alpha, beta, gamma):
        return river(
            lambda: time_series.HoltWinters(
                alpha=alpha, beta=beta, gamma=gamma, seasonality=season, multiplicative=False
            )
        )

    linear = linear_model.LinearRegression(optimizer=optim.SGD(0.003), intercept_lr=0.003)
    regressor = preprocessing.StandardScaler() | linear
    found = {
        "HoltWinters": holt_winters(0.3, 0.1, 0.6),
        "HoltWinters, steady": holt_winters(0.5, 0.001, 0.3),
        "Holt": river(lambda: time_series.HoltWinters(alpha=0.9, beta=0.01)),
        "SNARIMAX": river(
            lambda: time_series.SNARIMAX(p=LAGS, d=1, q=0, m=season, sp=2, regressor=regressor.clone())
        ),
        "Bayesian regression": lambda horizon: regression(
            stream, horizon, linear_model.BayesianLinearRegression
        ),
    }
    if AutoETS and season > 1:
        found["AutoETS"] = functools.partial(refitted, stream, decomposes=False)
        found["MSTL"] = functools.partial(refitted, stream, decomposes=True)
    if LSTMRegressor:
        found["deep-river"] = river(lambda: OneStep(changes=False))
        found["deep-river, changes"] = river(lambda: OneStep(changes=True))
    return found


def foretrace(stream, horizon, *, dates, covers=False):
    """Of foretrace; also its samples per second, the coverage, NaN unless asked for, and the seasons."""
    xs = [{"time": when} for when in stream.times] if dates else [None] * len(stream.y)
    model = RecurrentForecaster(horizon=horizon)
    model.clone().learn_one(float(stream.y[0]), xs[0])  # compiles
    said, inside, seconds = np.full((len(stream.y), horizon), math.nan), [], 0.0
    for t, (x, value) in enumerate(zip(xs, stream.y, strict=True)):
        begin = time.perf_counter()
        model.learn_one(float(value), x)
        said[t] = model.forecast(horizon)
        seconds += time.perf_counter() - begin
        if covers and t >= BEGINNING and t % EVERY == 0:
            bounds = model.forecast_interval(horizon)
            inside += [low <= y <= high for y, (low, high) in zip(stream.y[t + 1 :], bounds, strict=False)]
    return said, len(stream.y) / seconds, float(np.mean(inside)) if inside else math.nan, model.seasons


def with_features(stream):
    """Of foretrace's regressor, as `foretrace` has it."""
    model, y = RecurrentRegressor(), stream.y
    for x, value in zip(stream.xs[:3], y[:3], strict=True):  # compiles
        model.predict_one(x)
        model.learn_one(x, float(value))
    model, said, inside, seconds = model.clone(), np.full((len(y), 1), math.nan), [], 0.0
    for t, (x, value) in enumerate(zip(stream.xs, y, strict=True)):
        begin = time.perf_counter()
        said[max(t - 1, 0)] = model.predict_one(x)
        seconds += time.perf_counter() - begin
        if t >= BEGINNING and t % EVERY == 0:
            low, high = model.predict_interval_one(x)
            inside.append(low <= value <= high)
        begin = time.perf_counter()
        model.learn_one(x, float(value))
        seconds += time.perf_counter() - begin
    return said, len(y) / seconds, float(np.mean(inside)), []


# The table.


def error(said, y, horizon):
    """Mean absolute error over up to `horizon` rows ahead."""
    found = []
    for h in range(1, horizon + 1):
        last, truth, forecast = y[:-h], y[h:], said[:-h, h - 1]
        found.append(abs(np.where(np.isfinite(forecast), forecast, last) - truth).mean())
    return float(np.mean(found))


def measured(stream):
    """A row of the table for each horizon."""
    most, y = max(stream.horizons), stream.y
    names = {"persistence": 1} | {f"seasonal naive, {n}": n for n in stream.seasons}
    others = {name: rule(stream, most, period) for name, period in names.items()}
    speeds = {}
    for name, say in rivals(stream).items():
        begin = time.perf_counter()
        others[name] = say(most)
        speeds[name] = len(y) / (time.perf_counter() - begin)
    for horizon in stream.horizons:
        load = os.getloadavg()[0]  # of other programs, without which speeds mean little
        if stream.xs is None:
            result = foretrace(stream, horizon, dates=stream.times is not None, covers=True)
        else:
            result = with_features(stream)
        said, speed, coverage, seasons = result
        row: dict[str, Any] = collections.defaultdict(dict)
        row |= {"stream": stream.name, "horizon": horizon, "rows": len(y), "load": load}
        row |= {"coverage": None if math.isnan(coverage) else coverage, "seasons": seasons}
        row["error"]["foretrace"], row["per_second"]["foretrace"] = error(said, y, horizon), speed
        if stream.times is not None and horizon == most:
            said = foretrace(stream, horizon, dates=False)[0]
            row["error"]["foretrace, without dates"] = error(said, y, horizon)
        for name, said in others.items():
            row["error"][name] = error(said, y, horizon)
        if horizon == most:
            row["per_second"] |= speeds
        yield dict(row)


def main():
    """Runs all streams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nab", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, help="of each stream, all if left out")
    parser.add_argument("--only", nargs="+", help="streams by name")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="statsforecast")
    table = []
    for stream in streams(options.nab, options.data):
        if options.only and stream.name not in options.only:
            continue
        for row in measured(stream.first(options.rows)):
            table.append(row)
            shown = ", ".join(f"{who} {value:.4g}" for who, value in row["error"].items())
            speeds = ", ".join(f"{who} {value:,.0f}" for who, value in row["per_second"].items())
            print(f"{row['stream']}, {row['horizon']} ahead, {row['rows']:,} rows: {shown}")
            print(f"    coverage {row['coverage']}, seasons {row['seasons']}")
            print(f"    samples/s: {speeds}; load {row['load']:.1f}", flush=True)
        if options.out:  # after every stream: what was measured is not lost
            options.out.write_text(json.dumps({**environment(), "streams": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
