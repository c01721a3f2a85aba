"""The training loop against a loop in Python over `step`, `grad` and one optax update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace.cells import lstm, rnn
from foretrace.tasks import copy
from foretrace.training import Carry, Streams, trainer
from oracles import traced

TASK = copy()
CELL = rnn(hidden=4, inputs=TASK.inputs)
LANES = 3
# A stateful optimiser; Adam of optax itself mixes dtypes, which these tests forbid.
MOMENTUM = optax.sgd(0.1, momentum=0.9)


def objective(params, hidden, targets):
    """Cross-entropy in nats, mean over lanes, one lane after the other."""
    total = 0.0
    for lane in range(LANES):
        logits = hidden[lane] @ params["kernel"] + params["bias"]
        total += jax.nn.logsumexp(logits) - logits[targets[lane]]
    return total / LANES


def python_loop(learner, optimizer, carry, steps, update_every):
    """Training as one would write it by hand, one call per step."""
    params, optimizer_state, (state, stream) = carry
    step, grad = jax.jit(learner.step), jax.jit(learner.grad)
    sample, feedback = jax.jit(TASK.sample), jax.jit(TASK.feedback)
    value_and_grads = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))
    total = jax.tree.map(jnp.zeros_like, params)
    bits = []
    for i in range(steps):
        stream, example = sample(stream)
        state = learner.reset(state, example.restart)
        state, _ = step(params["cell"], state, example.x)
        loss, (readout, credit) = value_and_grads(params["readout"], state.hidden, example.target)
        gradient = {"cell": grad(params["cell"], state, credit), "readout": readout}
        total = jax.tree.map(jnp.add, total, gradient)
        if (i + 1) % update_every == 0:
            if update_every % learner.block == 0:
                # A full block is compressed with the weights that all of it was run with.
                state = eager(learner, params["cell"], state)
            mean = jax.tree.map(lambda leaf: leaf / update_every, total)
            changes, optimizer_state = optimizer.update(mean, optimizer_state, params)
            params = optax.apply_updates(params, changes)
            total = jax.tree.map(jnp.zeros_like, params)
        bits.append(loss / np.log(2))
        stream = feedback(stream, bits[-1])
    return params, state.hidden, stream, np.mean(bits)


def eager(learner, params, state):
    """Compresses now what `step` would compress when it is called next."""
    return jax.jit(learner.end_block)(params, state)[0]


def assert_close(got, want, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# OK is not among them: where singular values are equal, rounding alone decides which draw comes out.
CASES = {
    "kf_rtrl, online": (lambda: ft.kf_rtrl(CELL), 1),
    "kf_rtrl, blocks, online": (lambda: ft.kf_rtrl(CELL, block=3), 1),
    "rtrl, two updates in a block": (lambda: ft.rtrl(CELL, block=4), 2),
    "rtrl, one update in three steps": (lambda: ft.rtrl(CELL), 3),
    "tbptt, one update in a window": (lambda: ft.tbptt(CELL, window=3), 3),
    "kf_rtrl, one update in two blocks": (lambda: ft.kf_rtrl(CELL, block=3), 6),
    "average of uoro": (lambda: ft.average(ft.uoro(CELL), 2), 1),
}


@pytest.mark.parametrize(("make", "update_every"), CASES.values(), ids=CASES)
def test_a_chunk_equals_the_loop_in_python(make, update_every):
    learner = make()
    made = trainer(CELL, learner, TASK, MOMENTUM, lanes=LANES, steps=12, update_every=update_every)
    # Started twice from one seed: the two ways must not draw from the same key.
    by_hand, start = (jax.jit(made.init)(jax.random.key(5)) for _ in range(2))
    params, hidden, stream, bits = python_loop(learner, MOMENTUM, by_hand, 12, update_every)
    carry, metrics = jax.jit(made.chunk)(start)
    assert_close(carry.params, params)
    assert_close(carry.streams.learner.hidden, hidden)
    assert carry.streams.task.position.tolist() == stream.position.tolist()
    assert_close(metrics.loss, bits)
    assert metrics.task["T"].shape == (12 // made.period,)


def test_one_rtrl_update_follows_the_gradient_of_the_unrolled_loss():
    steps = 10  # two restarts of every lane lie within
    learner, optimizer = ft.rtrl(CELL), optax.sgd(1.0)
    made = trainer(CELL, learner, TASK, optimizer, lanes=LANES, steps=steps, update_every=steps)
    start = jax.jit(made.init)(jax.random.key(6))

    def unrolled(params):
        stream, hidden, total = start.streams.task, jnp.zeros((LANES, 4)), 0.0
        for _ in range(steps):
            stream, example = TASK.sample(stream)
            hidden = jnp.where(example.restart[:, None], 0.0, hidden)
            hidden = jax.vmap(CELL.step, in_axes=(None, 0, 0))(params["cell"], hidden, example.x)
            total += objective(params["readout"], hidden, example.target)
        return total / steps

    gradient = jax.jit(jax.grad(unrolled))(start.params)
    carry, metrics = jax.jit(made.chunk)(start)
    assert_close(jax.tree.map(jnp.subtract, start.params, carry.params), gradient, 1e-6)
    assert_close(metrics.gradient_norm, optax.tree.norm(gradient))


def test_seeds_under_vmap_equal_single_seeds():
    learner = ft.kf_rtrl(CELL, block=2)
    made = trainer(CELL, learner, TASK, MOMENTUM, lanes=LANES, steps=8)
    init, chunk = jax.jit(made.init), jax.jit(made.chunk)
    singles = [chunk(init(jax.random.split(jax.random.key(8), 2)[seed])) for seed in range(2)]
    keys = jax.random.split(jax.random.key(8), 2)
    together, metrics = jax.jit(jax.vmap(made.chunk))(jax.jit(jax.vmap(made.init))(keys))
    for seed, (carry, seen) in enumerate(singles):
        assert_close(jax.tree.map(lambda leaf, i=seed: leaf[i], together.params), carry.params)
        assert_close(metrics.loss[seed], seen.loss)
    assert np.abs(singles[0][0].params["readout"]["kernel"]).max() > 0
    assert float(metrics.loss[0]) != float(metrics.loss[1])


def test_a_second_chunk_does_not_recompile_and_reuses_the_memory():
    made = trainer(CELL, ft.ok(CELL, rank=2), TASK, MOMENTUM, lanes=LANES, steps=4)
    chunk, traces = traced(made.chunk, donate_argnums=0)
    carry, _ = chunk(jax.jit(made.init)(jax.random.key(0)))
    again, _ = chunk(carry)
    assert len(traces) == 1
    assert carry.params["readout"]["kernel"].is_deleted()
    assert jax.tree.structure(again) == jax.tree.structure(carry)


def test_clipping_bounds_the_step_of_all_parameters_together():
    learner = ft.tbptt(CELL, window=1)
    made = trainer(CELL, learner, TASK, optax.sgd(1.0), lanes=LANES, steps=1, clip=1e-3)
    start = jax.jit(made.init)(jax.random.key(0))
    carry, metrics = jax.jit(made.chunk)(start)
    change = optax.tree.norm(jax.tree.map(jnp.subtract, carry.params, start.params))
    assert float(metrics.gradient_norm) > 1e-2
    assert abs(float(change) - 1e-3) < 1e-6


def test_a_readout_of_a_state_that_is_no_vector_is_refused():
    cell = lstm(hidden=4, inputs=TASK.inputs)._replace(output=lambda hidden: hidden)
    with pytest.raises(ValueError, match=r"^cell.output must give a vector for the readout; got \.c"):
        trainer(cell, ft.tbptt(cell, window=1), TASK, MOMENTUM, lanes=LANES, steps=1)


def test_the_readout_reads_the_output_of_the_cell():
    cell = lstm(hidden=4, inputs=TASK.inputs)
    made = trainer(
        cell, ft.tbptt(cell, window=2), TASK, MOMENTUM,
        lanes=LANES, steps=4, update_every=2,
    )  # fmt: skip
    carry, metrics = jax.jit(made.chunk)(jax.jit(made.init)(jax.random.key(0)))
    assert isinstance(carry, Carry)
    assert isinstance(carry.streams, Streams)
    assert carry.params["readout"]["kernel"].shape == (4, 4)
    assert np.isfinite(float(metrics.loss))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": 0}, r"^lanes must be an int >= 1; got 0"),
        ({"update_every": 0}, r"^update_every must be an int >= 1; got 0"),
        ({"update_every": 3}, r"^update_every must divide the block length 4 .* got 3; use 4"),
        ({"update_every": 6}, r"^update_every must divide the block length 4 .* got 6; use 4"),
        ({"steps": 10}, r"^steps must be a multiple of 4, .* got 10; use 12"),
        ({"clip": 0.0}, r"^clip must be a number > 0; got 0"),
        ({"clip": float("nan")}, r"^clip must be a number > 0; got nan"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, message):
    learner = ft.ok(CELL, rank=2, block=4)
    with pytest.raises(ValueError, match=message):
        trainer(CELL, learner, TASK, optax.sgd(1.0), **({"lanes": 3, "steps": 8} | changes))
