"""The Kalman filter as an optimiser: against the textbook filter, ridge regression, and on a cell."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace.optim import KalmanState, kalman


def random_rows(outputs, sizes, steps, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {name: rng.normal(size=(outputs, *shape)) for name, shape in sizes.items()} for _ in range(steps)
    ]
    return rows, rng.normal(size=(steps, outputs))


SIZES = {"bias": (3,), "weights": (2, 3)}
# Numbers of the six weights and three biases that share a covariance, by their place in the flat vector.
MEMBERS = {
    "all": [list(range(9))],
    "leaf": [[0, 1, 2], [3, 4, 5, 6, 7, 8]],
    "unit": [[0, 3, 6], [1, 4, 7], [2, 5, 8]],
}


def textbook(groups, rows, errors, prior, noise, drift, forgetting):
    """The filter with a covariance of everything, whose blocks between groups are set to zero."""
    mask = np.zeros((9, 9))
    for members in MEMBERS[groups]:
        mask[np.ix_(members, members)] = 1
    covariance, change = prior * np.eye(9), np.zeros(9)
    for row, error in zip(rows, errors, strict=True):
        h = np.concatenate(
            [row["bias"].reshape(len(error), -1), row["weights"].reshape(len(error), -1)], axis=1
        )
        covariance = covariance / forgetting + drift * np.eye(9)
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + noise * np.eye(len(error)))
        change = change + gain @ error
        covariance = (covariance - gain @ h @ covariance) * mask
    return change, covariance


@pytest.mark.parametrize("groups", MEMBERS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_it_is_the_textbook_filter(groups, outputs, x64):
    rows, errors = random_rows(outputs, SIZES, 7)
    optimizer = kalman(groups=groups, prior=0.5, noise=0.3, drift=0.01, forgetting=0.98)
    params = {name: jnp.zeros(shape) for name, shape in SIZES.items()}
    state = optimizer.init(params)
    for row, error in zip(rows, errors, strict=True):
        row = jax.tree.map(jnp.asarray, row)
        changes, state = optimizer.update(row, state, params, error=jnp.asarray(error))
        params = optax.apply_updates(params, changes)
    expected, covariance = textbook(groups, rows, errors, 0.5, 0.3, 0.01, 0.98)
    flat = np.concatenate([params["bias"], params["weights"].ravel()])
    np.testing.assert_allclose(flat, expected, rtol=1e-10)
    if groups == "all":
        np.testing.assert_allclose(state.covariances[0][0], covariance, rtol=1e-9, atol=1e-12)


def test_a_linear_readout_with_one_covariance_is_ridge_regression(x64):
    rng = np.random.default_rng(1)
    xs, ys = rng.normal(size=(30, 4)), rng.normal(size=30)
    optimizer = kalman(groups="all", prior=2.0, noise=0.7)
    weights = jnp.zeros(4)
    state = optimizer.init(weights)
    for x, y in zip(xs, ys, strict=True):
        error = jnp.asarray(y - x @ np.asarray(weights))[None]
        changes, state = optimizer.update(jnp.asarray(x)[None], state, error=error)
        weights = optax.apply_updates(weights, changes)
    ridge = np.linalg.solve(xs.T @ xs / 0.7 + np.eye(4) / 2.0, xs.T @ ys / 0.7)
    np.testing.assert_allclose(weights, ridge, rtol=1e-9)


@pytest.mark.parametrize("learner", [ft.rtrl, ft.low_rank])
def test_with_the_jacobian_of_a_learner_it_learns_a_recurrent_network(learner):
    cell = ft.cells.rnn(hidden=8, inputs=1)
    parts = learner(cell)
    params = cell.init(jax.random.key(0))
    optimizer = kalman(noise=0.1, prior=0.1)
    xs = jnp.sin(0.3 * jnp.arange(400.0))[:, None]
    credit = jnp.zeros((1, 8)).at[0, 0].set(1.0)  # the output is the first unit

    @jax.jit
    def run(params):
        def step(carry, x):
            params, state, filtered = carry
            state, _ = parts.step(params, state, x[:1])
            error = x[1:] - state.hidden[:1]
            jacobian = jax.vmap(parts.grad, (None, None, 0))(params, state, credit)
            changes, filtered = optimizer.update(jacobian, filtered, params, error=error)
            return (optax.apply_updates(params, changes), state, filtered), error[0]

        state = parts.init(jax.random.key(1), params)
        pairs = jnp.concatenate([xs[:-3], 0.5 * xs[3:]], axis=1)  # three steps ahead
        return jax.lax.scan(step, (params, state, optimizer.init(params)), pairs)[1]

    errors = run(params)
    assert float(jnp.mean(errors[-50:] ** 2)) < 0.02 * float(jnp.mean(errors[:20] ** 2))


def test_a_number_that_is_not_finite_changes_nothing():
    optimizer = kalman(groups="leaf")
    state = optimizer.init(jnp.ones(2))
    for row, error in (([jnp.nan, 1.0], 1.0), ([1.0, 1.0], jnp.inf)):
        changes, new = optimizer.update(jnp.array([row]), state, error=jnp.array([error]))
        assert changes.tolist() == [0, 0]
        np.testing.assert_array_equal(new.covariances[0], state.covariances[0])


def test_forgetting_does_not_let_a_direction_without_samples_grow_for_ever():
    optimizer = kalman(groups="leaf", prior=0.1, forgetting=0.9)

    def step(state, _):
        return optimizer.update(jnp.array([[1.0, 0.0]]), state, error=jnp.ones(1))[1], None

    state, _ = jax.lax.scan(step, optimizer.init(jnp.zeros(2)), length=2000)
    assert isinstance(state, KalmanState)
    assert float(jnp.max(state.covariances[0])) < 0.1 * 10 * 2 / 0.9 + 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": 0.0}, "prior must be a number > 0"),
        ({"noise": float("nan")}, "noise must be a number > 0"),
        ({"drift": -1.0}, "drift must be a number >= 0"),
        ({"forgetting": 1.5}, "forgetting must be at most 1"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        kalman(**options)


def test_groups_have_a_name(no_types):
    with pytest.raises(ValueError, match=r"groups must be one of .*; got 'layer'; try 'unit'"):
        kalman(groups="layer")


def test_shapes_that_do_not_fit():
    optimizer = kalman()
    state = optimizer.init(jnp.zeros(2))
    with pytest.raises(ValueError, match="give both an axis of length 1"):
        optimizer.update(jnp.zeros((1, 2)), state, error=jnp.zeros(()))
    with pytest.raises(ValueError, match="update needs error="):
        optimizer.update(jnp.zeros((1, 2)), state)
    with pytest.raises(ValueError, match="params must be real"):
        optimizer.init(jnp.zeros(2, complex))
