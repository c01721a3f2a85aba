"""Errors on a stream that only memory can predict, beside models that see a window of it.

    python benchmarks/stream_memory.py [--out benchmarks/results/stream-memory.json] \
        [--figure docs/stream-memory.png]

A part enters a line as a pulse on one of two channels; 100 to 300 samples later, at a moment that nothing
announces, it is measured: -1 or 1, as the channel was. Nothing else has a label, and a noisy sensor
distracts. Every model predicts each measurement before it learns it, with defaults alone; a window model
sees the last samples of all channels, and learns at the measurements only. Without a memory the error is 1.

deep-river's LSTM takes part where it is installed. It is given only the samples that its window can hold,
and sees that of the measurement twice, once for the prediction and once for the lesson.
"""

import argparse
import functools
import json
import math
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from river import forest, linear_model, preprocessing

from foretrace.experiments._bench import environment
from foretrace.river import RecurrentRegressor

try:  # a peer where it is installed, never a dependency
    from deep_river.regression import LSTMRegressor
except ImportError:
    LSTMRegressor = None

NAMES = ("left", "right", "sensor")
SHORTEST, LONGEST = 100, 300
RECENT = 50  # measurements over which an error is averaged


def parts(samples, seed):
    """The channels, (samples, 3), and the measurements, (samples,), NaN where there is none."""
    rng = np.random.default_rng(seed)
    x, y = np.zeros((samples, 3)), np.full(samples, np.nan)
    x[:, 2] = rng.normal(size=samples)
    entered = 0
    while (measured := entered + int(rng.integers(SHORTEST, LONGEST + 1))) < samples:
        side = int(rng.integers(2))
        x[entered, side], y[measured] = 1, 2 * side - 1
        entered = measured + 1
    return x, y


def foretrace(x, y):
    """What the estimator said of each measurement."""
    model, said = RecurrentRegressor(), []
    for values, label in zip(x.tolist(), y.tolist(), strict=True):
        row = dict(zip(NAMES, values, strict=True))
        if not math.isnan(label):
            said.append(model.predict_one(row))
        model.learn_one(row, label)
    return np.array(said)


def river(make, window, x, y):
    """What a model of River said that sees the last samples as so many features."""
    model, said = preprocessing.StandardScaler() | make(), []
    for moment in np.flatnonzero(np.isfinite(y)):
        seen = x[max(0, moment + 1 - window) : moment + 1][::-1]
        features = {
            f"{name}{lag}": row[i] for lag, row in enumerate(seen.tolist()) for i, name in enumerate(NAMES)
        }
        said.append(model.predict_one(features))
        model.learn_one(features, y[moment])
    return np.array(said)


def deep_river(window, x, y):
    """What deep-river's LSTM said that runs over the last samples."""
    model, said = LSTMRegressor(n_features=len(NAMES), window_size=window, append_predict=True), []
    for moment in np.flatnonzero(np.isfinite(y)):
        rows = [
            dict(zip(NAMES, row, strict=True))
            for row in x[max(0, moment + 1 - window) : moment + 1].tolist()
        ]
        said.append([model.predict_one(row) for row in rows][-1])
        model.learn_one(rows[-1], y[moment])
    return np.array(said)


def models():
    """What each model is called, and what runs it."""
    linear, trees = linear_model.BayesianLinearRegression, functools.partial(forest.ARFRegressor, seed=0)
    found = {
        "foretrace": foretrace,
        "linear, 10 samples": functools.partial(river, linear, 10),
        "linear, 50 samples": functools.partial(river, linear, 50),
        "linear, 300 samples": functools.partial(river, linear, 300),
        "forest, 50 samples": functools.partial(river, trees, 50),
    }
    if LSTMRegressor:
        found["deep-river LSTM, 10 samples"] = functools.partial(deep_river, 10)
        found["deep-river LSTM, 50 samples"] = functools.partial(deep_river, 50)
    return found


def lately(errors, measured, moments):
    """The mean error of the last measurements, 50 at most, at each of some moments."""
    ends = np.searchsorted(measured, moments)
    return [float(errors[max(0, end - RECENT) : end].mean()) for end in ends]


def draw(rows, path):
    """Errors over time; what sees too short a window is all alike."""
    figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for row in rows[::-1]:
        color = {"foretrace": "#0072B2", "linear, 300 samples": "#D55E00"}.get(row["model"], "#999999")
        own = color != "#999999"
        lines = np.array(row["lately"])
        axes.plot(row["moments"], lines.mean(axis=0), color=color, linewidth=2 if own else 1)
        if own:
            axes.fill_between(
                row["moments"], lines.min(axis=0), lines.max(axis=0), color=color, alpha=0.15, lw=0
            )
            end = row["moments"][-1], lines[:, -1].mean()
            axes.annotate(
                row["model"], end, (6, -4), textcoords="offset points", color=color, annotation_clip=False
            )
    rest = "windows of 10 and 50\nsamples: linear, forest,\ndeep-river's LSTM"
    axes.annotate(
        rest, (rows[0]["moments"][-1], 1.0), (6, 4), textcoords="offset points", color="#666666",
        va="bottom", annotation_clip=False,
    )  # fmt: skip
    axes.set_title(
        f"A pulse decides what is measured {SHORTEST} to {LONGEST} samples later:\n"
        f"mean absolute error of the last {RECENT} measurements", loc="left", fontsize=11,
    )  # fmt: skip
    axes.set_ylim(0, 1.6)
    axes.set_xlim(0, rows[0]["moments"][-1])
    axes.set_xlabel("samples, one in 200 a measurement  (band: all streams)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main():
    """Runs every model on every stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=80_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    moments = np.linspace(0, options.samples, 41)[1:].tolist()
    table = []
    for name, run in models().items():
        begin, lines = time.perf_counter(), []
        for seed in range(options.seeds):
            x, y = parts(options.samples, seed)
            measured = np.flatnonzero(np.isfinite(y))
            lines.append(lately(abs(run(x, y) - y[measured]), measured, moments))
        seconds = time.perf_counter() - begin
        table.append({"model": name, "seconds": seconds, "moments": moments, "lately": lines})
        end = np.array(lines)[:, -1]
        print(
            f"{name}: error of the last {RECENT} {end.mean():.3f} ({end.min():.3f} to {end.max():.3f})",
            flush=True,
        )
    if options.out:
        record = {**environment(), "samples": options.samples, "models": table}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    if options.figure:
        draw(table, options.figure)


if __name__ == "__main__":
    main()
