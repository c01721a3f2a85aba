"""One recurrent network, fitted online by Adam or by the extended Kalman filter.

    python benchmarks/kalman.py [--nab DIR] [--rows N]

An element-wise LSTM of 32 units with exact gradients sees the last change and the level of a stream, and a
linear readout forecasts the next change. The figure is the mean absolute error over that of persistence,
a mean over three initialisations; Adam with the best of three learning rates, the filter with the best of
three priors, both chosen afterwards for each stream. The streams are those of `streams.py`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from streams import streams

import foretrace as ft

RATES = 1e-3, 3e-3, 1e-2
PRIORS = 0.01, 0.1, 1.0
SEEDS = 3
UNITS = 32


def run(optimizer: Any, needs_jacobian: bool) -> Callable[[Any, jax.Array], jax.Array]:
    """`(key, changes and levels (n, 2)) -> absolute errors (n - 1,)` of forecasts of the next change."""
    cell = ft.cells.elstm(hidden=UNITS, inputs=2)
    learner = ft.rtrl(cell)

    def predict(readout: jax.Array, hidden: Any) -> jax.Array:
        return readout[:-1] @ cell.output(hidden) + readout[-1]

    def step(carry: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        params, state, slots = carry
        x, target = row
        state, _ = learner.step(params["cell"], state, x)
        said, (readout, credit) = jax.value_and_grad(predict, (0, 1))(params["readout"], state.hidden)
        error = jnp.clip(target - said, -1, 1)  # Huber's
        gradient = {"cell": learner.grad(params["cell"], state, credit), "readout": readout}
        if needs_jacobian:
            jacobian = jax.tree.map(lambda leaf: leaf[None], gradient)
            changes, slots = optimizer.update(jacobian, slots, params, error=error[None])
        else:
            descent = jax.tree.map(lambda leaf: -error * leaf, gradient)
            changes, slots = optimizer.update(descent, slots, params)
        return (optax.apply_updates(params, changes), state, slots), abs(target - said)

    @jax.jit
    def errors(key: Any, rows: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        params = {"cell": cell.init(keys[0]), "readout": jnp.zeros(UNITS + 1)}
        carry = params, learner.init(keys[1], params["cell"]), optimizer.init(params)
        return jax.lax.scan(step, carry, (rows[:-1], rows[1:, 0]))[1]

    return errors


def main() -> None:
    """Prints a row for each stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nab", type=Path)
    parser.add_argument("--rows", type=int, default=6000)
    options = parser.parse_args()
    adam = {rate: run(optax.adam(rate), needs_jacobian=False) for rate in RATES}
    filters = {
        prior: run(ft.optim.kalman(prior=prior, forgetting=0.9995), needs_jacobian=True) for prior in PRIORS
    }
    print("| stream | rows | Adam (rate) | kalman (prior) |\n|---|---|---|---|")
    for stream in streams(options.nab, None):
        y = stream.first(options.rows).y
        changes = np.diff(y)
        scale = max(float(np.abs(changes[:100]).mean()), 1e-12)
        levels = (y - y[:100].mean()) / max(float(y[:100].std()), 1e-12)
        rows = jnp.asarray(np.clip(np.stack([changes / scale, levels[1:]], 1), -10, 10), jnp.float32)
        persistence = float(jnp.mean(abs(rows[1:, 0])))

        def ratio(errors: Callable, rows: jax.Array = rows, persistence: float = persistence) -> float:
            keys = jax.random.split(jax.random.key(0), SEEDS)
            return float(np.mean([np.mean(errors(key, rows)) for key in keys])) / persistence

        cells = []
        for runs in (adam, filters):
            reached = {setting: ratio(each) for setting, each in runs.items()}
            best = min(reached, key=lambda setting, reached=reached: reached[setting])
            cells.append(f"{reached[best]:.3f} ({best})")
        print(f"| {stream.name} | {len(y):,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
