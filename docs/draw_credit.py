"""Draws docs/credit.gif and docs/credit.png: credit that reaches back through time, as learners compute it.

    python docs/draw_credit.py

A recurrent network reads a stream. At every frame a loss at the newest step sends its credit back, and a
bar shows how much of it each learner gives to every step before. Nothing is drawn by hand: a network of
24 units has one more input for every step, too weak to be felt, which is 1 at that step and 0 at all
others. The gradient of that input's weights is the credit that arrives at this step. The bar is its
component along the exact one.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import foretrace as ft
from foretrace.plotting._style import GREY, PALETTE, new_figure

FOLDER = Path(__file__).parent
STEPS, UNITS, INPUTS, WEAK = 64, 24, 4, 1e-3
LEARNERS = {
    "TBPTT, window 12": lambda cell: ft.rolling_tbptt(cell, window=12),
    "UORO": ft.uoro,
    "OK, rank 4": lambda cell: ft.ok(cell, rank=4),
    "low_rank, rank 4": lambda cell: ft.low_rank(cell, rank=4, block=4),
}
WORDS = {
    "TBPTT, window 12": "forgets what is older than its window",
    "UORO": "right in the mean, mostly noise at each step",
    "OK, rank 4": "right in the mean, little noise",
    "low_rank, rank 4": "right in the mean, hardly any noise",
}


def network() -> tuple[ft.Cell, dict[str, jax.Array], jax.Array]:
    """A highway layer with fast and slow units, its parameters, and inputs, one of them for each step."""
    cell = ft.cells.highway(hidden=UNITS, inputs=INPUTS + STEPS)
    keys = jax.random.split(jax.random.key(2), 4)
    loud = jax.random.normal(keys[0], (INPUTS, 2 * UNITS))
    gates = jnp.linspace(-2.0, 3.5, UNITS)
    params = {
        "input": jnp.concatenate([loud, jnp.zeros((STEPS, 2 * UNITS))]),
        "recurrent": 1.2 * UNITS**-0.5 * jax.random.normal(keys[1], (UNITS, 2 * UNITS)),
        "bias": jnp.concatenate([jnp.zeros(UNITS), gates]),
    }
    xs = jnp.concatenate([jax.random.normal(keys[2], (STEPS, INPUTS)), WEAK * jnp.eye(STEPS)], axis=1)
    return cell, params, xs


def credits(make, cell: ft.Cell, params: dict[str, jax.Array], xs: jax.Array) -> np.ndarray:
    """Credit that arrives at each step when the loss is at each step, (loss at, arrives at, 2 UNITS)."""
    learner = make(cell)
    credit = jax.random.normal(jax.random.key(9), (UNITS,)) / UNITS**0.5

    @jax.jit
    def run(state):
        def each(state, x):
            state, _ = learner.step(params, state, x)
            return state, learner.grad(params, state, credit)["input"][INPUTS:] / WEAK

        return jax.lax.scan(each, state, xs)[1]

    return np.asarray(run(learner.init(jax.random.key(5), params)))


def along(estimate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The component of the estimated credit along the exact one, (loss at, arrives at)."""
    sizes = np.linalg.norm(exact, axis=2)
    return (estimate * exact).sum(axis=2) / np.where(sizes > 0, sizes, 1)


def draw(frame: int, exact: np.ndarray, estimates: dict[str, np.ndarray]) -> Image.Image:
    """One picture: the loss is at step `frame`."""
    figure = new_figure(7.2, 5.0)
    rows = figure.subplots(len(estimates), 1, sharex=True)
    top = 1.35 * exact.max()
    steps = np.arange(1, STEPS + 1)
    for axes, (name, estimate), color in zip(rows, estimates.items(), PALETTE, strict=False):
        axes.bar(steps, np.clip(estimate[frame], -top, top), color=color, width=0.8)
        axes.step(steps[: frame + 1], exact[frame, : frame + 1], where="mid", color="black", linewidth=1.1)
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.plot([frame + 1], [-0.55 * top], marker="^", color="black", markersize=6)
        axes.set_ylim(-0.7 * top, top)
        axes.set_xlim(0, STEPS + 1)
        axes.set_yticks([])
        axes.tick_params(labelsize=10)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_title(f"{name}: {WORDS[name]}", loc="left", fontsize=11.5, color=color, fontweight="bold")
    rows[-1].set_xlabel(
        "step of the stream; the loss is at the triangle, the black line is the exact credit", fontsize=11
    )
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def main() -> None:
    """Computes the credits and draws both files."""
    cell, params, xs = network()
    truth = credits(ft.rtrl, cell, params, xs)
    exact = np.linalg.norm(truth, axis=2)
    estimates = {name: along(credits(make, cell, params, xs), truth) for name, make in LEARNERS.items()}
    for name, estimate in estimates.items():
        error = np.linalg.norm(estimate[-1] - exact[-1]) / np.linalg.norm(exact[-1])
        print(f"{name}: relative error of the last frame's bars {error:.2g}")
    frames = [draw(frame, exact, estimates) for frame in range(1, STEPS, 2)]
    frames[-1].save(FOLDER / "credit.png", optimize=True)
    small = [frame.resize((720, 500), Image.Resampling.LANCZOS).quantize(32) for frame in frames]
    pauses = [140] * (len(small) - 1) + [2500]
    small[0].save(FOLDER / "credit.gif", save_all=True, append_images=small[1:], duration=pauses, loop=0)


if __name__ == "__main__":
    main()
