"""Progressive errors and samples per second on real streams, beside persistence and River's models.

    python benchmarks/streams.py [--nab DIR] [--rows N] [--out benchmarks/results/streams.json]

Every model forecasts each value before it sees it, with defaults alone; the figure is the mean absolute
error over all values but the first, at more than one horizon the mean over all of them. Where a model has
nothing to say yet, persistence speaks for it. The NAB streams are read where `--nab` says they are.
"""

import argparse
import csv
import json
import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from river import compose, datasets, linear_model, optim, preprocessing, time_series

from foretrace.bench import environment
from foretrace.river import RecurrentForecaster, RecurrentRegressor

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


class Lagged:
    """Bayesian linear regression of the change on the last changes, one step ahead."""

    def __init__(self):
        self.model = compose.Pipeline(
            preprocessing.StandardScaler(), linear_model.BayesianLinearRegression()
        )
        self.last = []

    def forecast(self, horizon, xs=None):
        """The next value, as a list."""
        return [self.last[0] + self.model.predict_one(self._features())]

    def learn_one(self, y, x=None):
        """Learns the next value."""
        if len(self.last) > 1:
            self.model.learn_one(self._features(), y - self.last[0])
        self.last = [y, *self.last][: LAGS + 1]

    def _features(self):
        return {f"change{i}": a - b for i, (a, b) in enumerate(pairwise(self.last))}


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
    return found | ({"BayesianLR": Lagged} if horizon == 1 else {})


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
    parser.add_argument("--rows", type=int, default=4000)
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
        row["error"]["persistence"] = errors(persistence, y)
        row["error"]["seasonal naive"] = errors(seasonal, y)
        if xs is None:
            warm = RecurrentForecaster(horizon=horizon)
            warm.learn_one(float(y[0]))
            said, speed = one_by_one(RecurrentForecaster(horizon=horizon), y, horizon)
            row["per_second"]["foretrace, chunks"] = chunk_speed(RecurrentForecaster(horizon=horizon), y)
        else:
            said, speed = with_features(y, xs)
        row["error"]["foretrace"], row["per_second"]["foretrace"] = errors(said, y), speed
        for rival, make in rivals(horizon, season).items():
            said, speed = one_by_one(make(), y, horizon)
            row["error"][rival], row["per_second"][rival] = errors(said, y), speed
        table.append(row)
        shown = ", ".join(f"{who} {value:.4g}" for who, value in row["error"].items())
        speeds = ", ".join(f"{who} {value:,.0f}" for who, value in row["per_second"].items())
        print(f"{name}, {horizon} ahead, {len(y):,} rows: {shown}\n    samples/s: {speeds}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({**environment(), "streams": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
