"""What a block costs and what it does to the noise: docs/block.png and benchmarks/results/block.json.

    python benchmarks/block.py

Noise: relative squared error of the influence matrix that a learner reads, against exact RTRL, mean over
steps (every place in a block) and seeds; highway with 24 units and fixed random weights.
Time: one step with gradient and update, highway with 128 units, 16 lanes, in the loop of `foretrace bench`.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import foretrace as ft
from foretrace._types import at_phase
from foretrace.experiments import _bench as bench

BLOCKS = (1, 2, 4, 8, 16, 32)
RANKS = (4, 16)
STEPS, SKIP, SEEDS, UNITS, INPUTS = 384, 128, 8, 24, 4
ROOT = Path(__file__).resolve().parents[1]


def influences(learner, params, xs, key):
    """The influence matrix as read at every step, (steps, S, P)."""
    state = learner.init(key, params)
    basis = jnp.eye(UNITS)

    def one(state, inputs):
        index, x = inputs
        state = learner.advance(params, at_phase(state, index), x)
        rows = jax.vmap(lambda credit: learner.grad(params, state, credit))(basis)
        flat = jnp.concatenate([leaf.reshape(UNITS, -1) for leaf in jax.tree.leaves(rows)], axis=1)
        return state, flat

    def block(state, xs):
        state, read = jax.lax.scan(one, state, (jnp.arange(learner.block), xs))
        return learner.end_block(params, state)[0], read

    blocks = xs.reshape(-1, learner.block, INPUTS)
    return jax.lax.scan(block, state, blocks)[1].reshape(STEPS, UNITS, -1)


def noise(rank, block):
    """Relative squared error in the mean over seeds, each with its own weights and inputs."""
    cell = ft.cells.highway(hidden=UNITS, inputs=INPUTS)

    @jax.jit
    def error(seed):
        keys = jax.random.split(jax.random.key(seed), 4)
        params = cell.init(keys[0])
        params["recurrent"] = 2.0 * jax.random.normal(keys[0], params["recurrent"].shape) * UNITS**-0.5
        params["input"] = jax.random.normal(keys[1], params["input"].shape)
        xs = jax.random.normal(keys[2], (STEPS, INPUTS))
        exact = influences(ft.rtrl(cell), params, xs, keys[3])
        found = influences(ft.ok(cell, rank=rank, block=block), params, xs, keys[3])
        return jnp.sum((found - exact)[SKIP:] ** 2) / jnp.sum(exact[SKIP:] ** 2)

    return [float(error(seed)) for seed in range(SEEDS)]


def time_of(rank, block):
    """Microseconds per step: median of a few runs, and the bytes of the learner's state."""
    setting = bench.Setting("highway", 128, 4, 16, (f"ok:{rank}/{block}",))
    record = bench.measure_setting(f"highway-128 ok:{rank}/{block}", 3, setting=setting)
    return record["rows"][0]


def main():
    """Measures and draws."""
    rows = []
    for rank in RANKS:
        for block in BLOCKS:
            errors, timed = noise(rank, block), time_of(rank, block)
            rows.append({"rank": rank, "block": block, "errors": errors, **timed})
            print(f"ok:{rank}, block {block}: relative squared error {np.mean(errors):.4f}", flush=True)
    record = {**bench.environment(), "rows": rows}
    (ROOT / "benchmarks/results/block.json").write_text(json.dumps(record, indent=2) + "\n")
    draw(rows, ROOT / "docs/block.png")


def draw(rows, path):
    """Error and step time against the block, one line per rank."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for rank, colour in zip(RANKS, ("#d55e00", "#0072b2"), strict=True):
        own = [row for row in rows if row["rank"] == rank]
        blocks = [row["block"] for row in own]
        errors = np.array([row["errors"] for row in own])
        left.plot(blocks, errors.mean(axis=1), "o-", color=colour)
        left.fill_between(blocks, errors.min(axis=1), errors.max(axis=1), color=colour, alpha=0.15, lw=0)
        right.plot(blocks, [row["us"] / 1e3 for row in own], "o-", color=colour)
        right.plot(blocks, [row["floor_us"] / 1e3 for row in own], "--", color=colour, lw=1)
        for axes, value in ((left, errors[-1].mean()), (right, own[-1]["us"] / 1e3)):
            axes.annotate(  # above and below: a larger rank has less noise and takes longer
                f"ok:{rank}",
                (blocks[-1], value),
                (6, 5 if (rank == max(RANKS)) == (axes is right) else -5),
                textcoords="offset points",
                color=colour,
                va="center",
            )
    left.set_title("Noise: relative squared error of the influence", loc="left", fontsize=10)
    right.set_title("Milliseconds per step (dashed: bare product)", loc="left", fontsize=10)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(BLOCKS, [str(block) for block in BLOCKS])
        axes.set_xlim(0.9, 55)
        axes.set_xlabel("block, steps")
        axes.grid(axis="y", alpha=0.3)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
    right.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    right.set_ylim(4, 80)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
