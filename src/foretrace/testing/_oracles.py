"""What learners are measured against: random streams, and the gradient computed the stupid way."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Cell


def noise(tree: Any, seed: int, scale: float = 1.0) -> Any:
    """Random arrays shaped like a tree's."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(scale * rng.normal(size=a.shape), a.dtype), tree)


def draw(cell: Cell, seed: int = 0, scale: float = 0.6) -> Any:
    """Random parameters, larger than a cell's own so that nothing hides in small numbers."""
    return noise(jax.eval_shape(cell.init, jax.random.key(0)), seed, scale)


def stream(cell: Cell, steps: int, lanes: int | None = None, seed: int = 1) -> tuple[Any, Any]:
    """Random inputs and credits, leaves (steps, ..) or (steps, lanes, ..)."""
    axes = (steps,) if lanes is None else (steps, lanes)

    def repeat(tree):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(axes + a.shape, a.dtype), tree)

    x, hidden = jax.eval_shape(cell.example_input), jax.eval_shape(cell.initial_hidden)
    return noise(repeat(x), seed), noise(repeat(hidden), seed + 1)


def dot(a: Any, b: Any) -> Any:
    """Inner product of two trees."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(u * v) for u, v in pairs)


def exact(cell: Cell, params: Any, xs: Any, credits: Any, restart: Any = None) -> Any:
    """d(credit_t . h_t)/d(params) of one unrolled stream, leaves (steps, ..).

    `restart` (steps,) tells before which steps the stream begins again.
    """
    initial = cell.initial_hidden()
    restart = jnp.zeros(len(jax.tree.leaves(xs)[0]), bool) if restart is None else restart

    def losses(params):
        def step(hidden, inputs):
            x, credit, again = inputs
            hidden = jax.tree.map(lambda a, b: jnp.where(again, a, b), initial, hidden)
            hidden = cell.step(params, hidden, x)
            return hidden, dot(credit, hidden)

        return jax.lax.scan(step, initial, (xs, credits, restart))[1]

    return jax.jit(jax.jacrev(losses))(params)


def exact_lanes(cell: Cell, params: Any, xs: Any, credits: Any, restart: Any = None) -> Any:
    """The sum of `exact` over lanes; arrays are (steps, lanes, ..)."""
    restart = jnp.zeros(jax.tree.leaves(xs)[0].shape[:2], bool) if restart is None else restart
    one = jax.vmap(lambda *lane: exact(cell, params, *lane), in_axes=1)
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), one(xs, credits, restart))


def assert_close(got: Any, expected: Any, tolerance: float | int = 1e-10, claim: str = "") -> None:
    """Trees agree; the tolerance is relative to the largest entry."""
    assert_that(jax.tree.structure(got) == jax.tree.structure(expected), f"{claim}: the trees differ")
    paths = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), have in zip(paths, jax.tree.leaves(got), strict=True):
        have, want = np.asarray(have), np.asarray(want)
        where = f"{claim} {jax.tree_util.keystr(path)}".strip()
        assert_that(have.shape == want.shape, f"{where}: shape {have.shape}, not {want.shape}")
        scale = 1 + np.abs(want).max(initial=0)
        np.testing.assert_allclose(have, want, rtol=0, atol=tolerance * scale, err_msg=where)


def assert_that(holds: bool, message: str) -> None:
    """Raises AssertionError with the message unless it holds."""
    if not holds:
        raise AssertionError(message)
