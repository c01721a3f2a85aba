"""How fast forecasts recover from an abrupt change, beside regressions that forget at a fixed rate.

    python benchmarks/drift.py [--seeds N] [--out FILE]

Made streams, 2,000 rows before a change and 1,000 after it: of the level, of the season (another amplitude
and place), of the sign of the dependence on the last value, of the size of the noise. The error is that of
one row ahead, a mean over the seeds and 25 rows. *Before* is its mean over the last 500 rows before the
change; *back* the first row after it from which on the error stays within 1.2 times its mean over the last
500 rows of the stream, which an unpredictable part sets anew. The others are recursive least squares on the
last value, 24 lags and the right season, with each of the forgetting factors; the best is named, chosen
afterwards.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from foretrace import stream
from foretrace.experiments._bench import environment
from foretrace.river import RecurrentForecaster

BEFORE, AFTER, SEASON, LAGS, OVER = 2000, 1000, 24, 24, 25
FACTORS = 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0


def made(kind: str, seed: int) -> np.ndarray:
    """A stream with a season and an autoregressive part, (3000,)."""
    rng = np.random.default_rng(seed)
    rows = np.arange(BEFORE + AFTER)
    is_late = rows >= BEFORE
    noise = rng.normal(size=len(rows)) * np.where(is_late & (kind == "noise"), 3, 1)
    amplitude = np.where(is_late & (kind == "season"), 8, 5)
    place = np.where(is_late & (kind == "season"), 9, 0)
    keep = np.where(is_late & (kind == "dependence"), -0.8, 0.8)
    rest = np.zeros(len(rows))
    for row in rows[1:]:
        rest[row] = keep[row] * rest[row - 1] + noise[row]
    level = np.where(is_late & (kind == "level"), 60, 0)
    return level + amplitude * np.sin(2 * np.pi * (rows + place) / SEASON) + rest


KINDS = "level", "season", "dependence", "noise"


def errors_of_foretrace(series: np.ndarray) -> np.ndarray:
    """Absolute errors, (rows - 1,), with the defaults."""
    model = RecurrentForecaster()
    model.learn_many(series[:1])
    rows = np.zeros((len(series) - 1, 0, 2), np.float32), stream.pairs(series[1:])
    _, packed = stream.run_rows(model._compiled, model._state, *rows)
    return abs(stream.ForecastResult.unpack(packed).previous_forecast[:, 0] - series[1:])


@jax.jit
def _least_squares(inputs: jax.Array, targets: jax.Array, factor: jax.Array) -> jax.Array:
    def step(carry, row):
        weights, covariance = carry
        x, y = row
        error = y - x @ weights
        product = covariance @ x
        gain = product / (factor + x @ product)
        return (weights + gain * error, (covariance - jnp.outer(gain, product)) / factor), error

    n = inputs.shape[1]
    return abs(jax.lax.scan(step, (jnp.zeros(n), 100 * jnp.eye(n)), (inputs, targets))[1])


def errors_of_regression(series: np.ndarray, factor: float) -> np.ndarray:
    """Absolute errors, (rows - 1,), of a regression of the change that knows the season."""
    lagged = np.lib.stride_tricks.sliding_window_view(np.pad(series, (LAGS, 0), mode="edge"), LAGS + 1)
    angle = 2 * np.pi * np.arange(len(series)) / SEASON
    inputs = np.column_stack(
        [
            np.ones(len(series)),
            np.cos(angle),
            np.sin(angle),
            lagged[:, 1:],
        ]
    )
    return np.asarray(_least_squares(inputs[:-1], np.diff(series), factor), float)


def recovery(curve: np.ndarray) -> tuple[float, int]:
    """Error before the change, and rows after it until the error is back, of a curve from row 1 on."""
    before = curve[BEFORE - 501 : BEFORE - 1].mean()
    late = curve[-500:].mean()
    smooth = np.convolve(curve[BEFORE - 1 :], np.ones(OVER) / OVER, mode="valid")
    is_off = np.flatnonzero(smooth > 1.2 * late)
    return before, int(is_off[-1]) + 1 if len(is_off) else 0


def main() -> None:
    """Measures all kinds, prints the table, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    record = {"environment": environment(), "seeds": options.seeds, "kinds": {}}
    print("| change of | error before | rows until back | regression: error before | its rows | factor |")
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        data = [made(kind, seed) for seed in range(options.seeds)]

        def curve(errors: Callable[[np.ndarray], np.ndarray], data=data) -> np.ndarray:
            return np.mean([errors(series) for series in data], axis=0)

        ours = recovery(curve(errors_of_foretrace))
        with jax.enable_x64(True):
            others = {f: recovery(curve(lambda each, f=f: errors_of_regression(each, f))) for f in FACTORS}
        factor = min(others, key=lambda f: (others[f][1], others[f][0]))
        record["kinds"][kind] = {"foretrace": ours, "regressions": {str(f): x for f, x in others.items()}}
        before, rows = others[factor]
        print(f"| {kind} | {ours[0]:.3g} | {ours[1]} | {before:.3g} | {rows} | {factor} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
