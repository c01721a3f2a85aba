"""The right factors of a block's steps: a matrix of few entries and the same one whole agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners._engine._right_factors import DenseRight, SparseRight, mixed
from foretrace.structure._jacobians import jacobian_rule

CELLS = {
    "rnn": lambda: ft.cells.rnn(hidden=5, inputs=3),
    "highway": lambda: ft.cells.highway(hidden=5, inputs=3),
    "lstm": lambda: ft.cells.lstm(hidden=5, inputs=3),
}


@pytest.fixture(params=CELLS)
def both(request):
    """The preactivation Jacobian of a step, (S, Z), by its entries and whole."""
    cell = CELLS[request.param]()
    params = cell.init(jax.random.key(0))
    structure = ft.structure_of(cell, params)
    way = jacobian_rule(structure)
    hidden = jax.random.normal(jax.random.key(1), (structure.state_size,))
    _, residuals = structure.forward(params, hidden, jnp.ones(3))
    _, slopes, _ = way.step(way.weights(params), way.values(params, residuals), None, jnp.array(False))
    (whole,), (entries,) = way.rights(slopes, None), way.entries(slopes)
    return SparseRight(*entries, whole.shape), DenseRight(whole[None])


def test_the_entries_are_all_there_are(both):
    placed, whole = both
    np.testing.assert_array_equal(placed.dense, whole.dense)
    assert np.count_nonzero(whole.dense) < whole.dense.size / 3


def test_products_with_a_past_agree(both):
    placed, whole = both
    count, shape = whole.dense.size, whole.dense.shape[1:]
    past = jnp.arange(4.0 * count).reshape(*shape, 4) / count
    mixing = jnp.array([[1.0], [-2], [0.5], [0]])
    np.testing.assert_allclose(placed.squares(), whole.squares(), rtol=1e-6)
    np.testing.assert_allclose(placed.gram(), whole.gram(), rtol=1e-6)
    np.testing.assert_allclose(placed.across(past), whole.across(past), rtol=1e-5)
    for columns in (4, 1):
        one = past[..., :columns], mixing[:columns]
        np.testing.assert_allclose(placed.added(*one), whole.added(*one), rtol=1e-6)


@pytest.mark.parametrize("columns", [1, 8, 9])
def test_mixing_is_a_product(columns):
    past = jax.random.normal(jax.random.key(0), (6, 5, columns))
    mixing = jax.random.normal(jax.random.key(1), (5, columns))
    np.testing.assert_allclose(mixed(past, mixing), past @ mixing.T, atol=1e-5)
