"""Progressive errors and samples per second on real streams, beside persistence and River's models.

    python benchmarks/streams.py [--nab DIR] [--rows N] [--out benchmarks/results/streams.json]

Every model forecasts each value before it sees it, with defaults alone; the figure is the mean absolute
error over all values but the first, at more than one horizon the mean over all of them. Where a model has
nothing to say yet, persistence speaks for it. "foretrace, period" is told the season, and nothing else. The
NAB streams are read where `--nab` says they are. deep-river takes part where it is installed.
"""

import argparse
import csv
import functools
import json
import math
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from river import datasets, linear_model, optim, preprocessing, time_series

from foretrace.experiments._bench import environment
from foretrace.river import RecurrentForecaster, RecurrentRegressor

try:  # a peer where it is installed, never a dependency
    from deep_river.regression import LSTMRegressor
except ImportError:
    LSTMRegressor = None

NAB = ("machine_temperature_system_failure", "ambient_temperature_system_failure",
       "cpu_utilization_asg_misconfiguration")  # fmt: skip
LAGS = 12


def streams(nab, rows):
    """Name, values, features or None, horizon and season of every stream."""
    airline = [y for _, y in datasets.AirlinePassengers()]
    water = [y for _, y in datasets.WaterFlow()]
    trump = list(datasets.TrumpApproval())
    yield "Airline", airline, None, 1, 12
    yield "Airline", airline, None, 12, 12
    yield "WaterFlow", water, None, 1, 24
    yield "WaterFlow", water, None, 24, 24
    yield "Trump", [y for _, y in trump], [x for x, _ in trump], 1, 7
    for name, season in zip(NAB, (288, 24, 288), strict=True):
        path = nab / f"{name}.csv" if nab else None
        if path and path.exists():
            with path.open() as file:
                values = [float(row["value"]) for row in csv.DictReader(file)]
            yield name.split("_")[0], values[:rows], None, 1, season


class OneStep:
    """A regressor that says the next value, or how far it changes, from the last values or changes."""

    def __init__(self, regressor, lags, *, changes):
        self.model = preprocessing.StandardScaler() | regressor
        self.lags, self.changes = lags, changes
        self.last = []

    def forecast(self, horizon, xs=None):
        """The next value, as a list."""
        return [self.changes * self.last[0] + self.model.predict_one(self._features())]

    def learn_one(self, y, x=None):
        """Learns the next value."""
        features = self._features()
        if features:
            self.model.learn_one(features, y - self.changes * self.last[0])
        self.last = [y, *self.last][: self.lags + self.changes]

    def _features(self):
        seen = [a - b for a, b in pairwise(self.last)] if self.changes else self.last
        return {f"lag{i}": value for i, value in enumerate(seen)}


def deep_river(*, changes):
    """Its LSTM over the last 10 samples; the target is standardised, a raw one it would never reach."""
    lstm = LSTMRegressor(n_features=1, window_size=10)
    return OneStep(preprocessing.TargetStandardScaler(lstm), 1, changes=changes)


def rivals(horizon, season):
    """Models by name; what makes them."""
    found = {
        "HoltWinters": lambda: time_series.HoltWinters(
            alpha=0.3, beta=0.1, gamma=0.6, seasonality=season, multiplicative=False
        ),
        "Holt": lambda: time_series.HoltWinters(alpha=0.9, beta=0.01),
        "SNARIMAX": lambda: time_series.SNARIMAX(
            p=season if season <= 24 else 12,
            d=1,
            q=3,
            regressor=preprocessing.StandardScaler()
            | linear_model.LinearRegression(optimizer=optim.SGD(0.01), intercept_lr=0.3),
        ),
    }
    if horizon == 1:
        found["BayesianLR"] = lambda: OneStep(linear_model.BayesianLinearRegression(), LAGS, changes=True)
        if LSTMRegressor:
            found["deep-river"] = functools.partial(deep_river, changes=False)
            found["deep-river, changes"] = functools.partial(deep_river, changes=True)
    return found


def errors(said, y):
    """Mean absolute error; `said` (n, H) was said after each value of the next H, NaN for nothing."""
    n, horizon = said.shape
    found = []
    for h in range(1, horizon + 1):
        last, truth = y[:-h], y[h:]
        forecast = said[: n - h, h - 1]
        forecast = np.where(np.isfinite(forecast), forecast, last)
        found.append(np.abs(forecast - truth).mean())
    return float(np.mean(found))


def one_by_one(model, y, horizon):
    """What a forecaster says after each value, and samples per second."""
    said = np.full((len(y), horizon), math.nan)
    begin = time.perf_counter()
    for t, value in enumerate(y):
        model.learn_one(float(value))
        try:
            ahead = model.forecast(horizon=horizon)
        except (ArithmeticError, IndexError, ValueError, TypeError):
            continue
        said[t] = [v if v is not None and abs(v) < 1e12 else math.nan for v in ahead]
    return said, len(y) / (time.perf_counter() - begin)


def with_features(y, xs):
    """What the regressor says of each value before it comes, as `one_by_one` has it."""
    model = RecurrentRegressor()
    for x, value in zip(xs[:3], y[:3], strict=True):  # compiles
        model.predict_one(x)
        model.learn_one(x, float(value))
    model, said = model.clone(), np.full((len(y), 1), math.nan)
    begin = time.perf_counter()
    for t, (x, value) in enumerate(zip(xs, y, strict=True)):
        if t:
            said[t - 1] = model.predict_one(x)
        model.learn_one(x, float(value))
    return said, len(y) / (time.perf_counter() - begin)


def chunk_speed(model, y):
    """Samples per second of `learn_many`, compiled already."""
    many = np.tile(y, 1 + 8192 // len(y))[:8192]
    model.learn_many(many[:257])  # compiles
    begin = time.perf_counter()
    model.learn_many(many)
    model.forecast(1)
    return 8192 / (time.perf_counter() - begin)


def main():
    """Runs all streams."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nab", type=Path)
    parser.add_argument("--rows", type=int, help="of the NAB streams, all if left out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = []
    for name, values, xs, horizon, season in streams(options.nab, options.rows):
        y = np.asarray(values, float)
        persistence = np.tile(y[:, None], (1, horizon))
        seasonal = np.full((len(y), horizon), math.nan)
        for h in range(horizon):
            # Value t + h + 1, a season ago; before the first season there is none.
            seasonal[season - 1 - h :, h] = y[: len(y) - (season - 1 - h)]
        row = {"stream": name, "horizon": horizon, "rows": len(y), "error": {}, "per_second": {}}
        row["load"] = os.getloadavg()[0]  # of other programs, without which speeds mean little
        row["error"]["persistence"] = errors(persistence, y)
        row["error"]["seasonal naive"] = errors(seasonal, y)
        if xs is None:
            warm = RecurrentForecaster(horizon=horizon)
            warm.learn_one(float(y[0]))
            said, speed = one_by_one(RecurrentForecaster(horizon=horizon), y, horizon)
            row["per_second"]["foretrace, chunks"] = chunk_speed(RecurrentForecaster(horizon=horizon), y)
            named = one_by_one(RecurrentForecaster(horizon=horizon, period=season), y, horizon)[0]
            row["error"]["foretrace, period"] = errors(named, y)
        else:
            said, speed = with_features(y, xs)
        row["error"]["foretrace"], row["per_second"]["foretrace"] = errors(said, y), speed
        for rival, make in rivals(horizon, season).items():
            said, speed = one_by_one(make(), y, horizon)
            row["error"][rival], row["per_second"][rival] = errors(said, y), speed
        table.append(row)
        shown = ", ".join(f"{who} {value:.4g}" for who, value in row["error"].items())
        speeds = ", ".join(f"{who} {value:,.0f}" for who, value in row["per_second"].items())
        print(f"{name}, {horizon} ahead, {len(y):,} rows: {shown}")
        print(f"    samples/s: {speeds}; load {row['load']:.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({**environment(), "streams": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
