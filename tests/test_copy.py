"""The copy task against its protocol, read back from the stream by plain Python."""

from collections import Counter
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foretrace.tasks import copy
from oracles import traced

LANES, STEPS = 5, 6000


@pytest.fixture(scope="module")
def run():
    """A long stream with losses that let the curriculum rise every now and then."""
    task = copy()
    losses = jnp.asarray(np.random.default_rng(0).uniform(0.0, 0.25, STEPS), jnp.float32)

    def step(state, loss):
        state, example = task.sample(state)
        record = (example, task.metrics(state)["T"], state.average)
        return task.feedback(state, loss), record

    start = task.init(jax.random.key(3), LANES)
    _, (example, curriculum, average) = jax.jit(lambda s: jax.lax.scan(step, s, losses))(start)
    return jax.tree.map(np.asarray, (losses, *example, curriculum, average))


def sequences(run):
    """(lane, first step, input symbols, target symbols) of every whole sequence."""
    _, x, target, restart, _, _ = run
    for lane in range(LANES):
        starts = np.flatnonzero(restart[:, lane])
        for first, after in pairwise(starts):
            yield lane, first, x[first:after, lane].argmax(-1), target[first:after, lane]


def test_inputs_are_one_hot_float32(run):
    x = run[1]
    assert x.shape == (STEPS, LANES, 4)
    assert x.dtype == np.float32
    assert set(np.unique(x)) == {0, 1}
    assert (x.sum(-1) == 1).all()


def test_every_sequence_follows_the_protocol(run):
    checked = 0
    for _, _, inputs, answers in sequences(run):
        length = (len(inputs) - 2) // 2
        expected = np.full(2 * length + 2, 3)
        expected[0] = 2
        expected[1 : length + 1] = inputs[1 : length + 1]
        np.testing.assert_array_equal(inputs, expected)
        assert set(inputs[1 : length + 1]) <= {0, 1}
        assert (answers[: length + 1] == 3).all()
        np.testing.assert_array_equal(answers[length + 1 :], inputs[: length + 1])
        checked += 1
    assert checked > 500


def test_the_first_input_of_every_lane_is_a_restart(run):
    restart = run[3]
    assert restart[0].all()
    assert not restart[1:4].any()  # T = 1: four time steps


def test_lanes_restart_on_their_own(run):
    restart = run[3]
    assert (restart.any(axis=1) & ~restart.all(axis=1)).sum() > 100


def test_curriculum_and_average_equal_a_loop_in_python(run):
    losses, _, _, restart, curriculum, average = run
    t, ema = 1, 1.0
    for i in range(STEPS):
        if restart[i].any() and ema < 0.15:
            t, ema = t + 1, 0.3
        assert curriculum[i] == t
        assert abs(average[i] - ema) < 1e-4
        ema = 0.999 * ema + 0.001 * losses[i]
    assert t >= 3


def test_lengths_are_uniform_over_the_last_five_of_the_curriculum(run):
    curriculum = run[4]
    for _, first, inputs, _ in sequences(run):
        t = curriculum[first]
        assert max(1, t - 4) <= (len(inputs) - 2) // 2 <= t
    task = copy()
    state = task.init(jax.random.key(0), 4000)
    state, _ = task.sample(state._replace(curriculum=jnp.int32(9)))
    counts = Counter(np.asarray(state.length).tolist())
    assert sorted(counts) == [5, 6, 7, 8, 9]
    assert min(counts.values()) > 700


def test_bits_are_fair_and_differ_between_lanes_and_sequences(run):
    words = [tuple(inputs[1 : len(inputs) // 2]) for _, _, inputs, _ in sequences(run)]
    bits = np.concatenate(words)
    assert abs(bits.mean() - 0.5) < 0.05
    longest = max(map(len, words))
    assert len({word for word in words if len(word) == longest}) > 2


def test_the_stream_depends_on_the_key_alone():
    task = copy()
    first, second = (task.sample(task.init(jax.random.key(7), 3)) for _ in range(2))
    assert first[0].length.tolist() == second[0].length.tolist()


def test_a_sequence_of_any_length_is_asked_for_again():
    task = copy()
    state = task.init(jax.random.key(1), 1)._replace(curriculum=jnp.int32(3000))

    def step(state, _):
        state, example = task.sample(state)
        return state, (example, state.length)

    _, (example, length) = jax.lax.scan(step, state, length=6002)
    t = int(length[0, 0])
    assert t >= 2996
    inputs, answers = np.asarray(example.x[:, 0].argmax(-1)), np.asarray(example.target[:, 0])
    np.testing.assert_array_equal(answers[t + 1 : 2 * t + 2], inputs[: t + 1])


def test_a_second_call_does_not_recompile():
    task = copy()
    sample, traces = traced(task.sample)
    state, _ = sample(task.init(jax.random.key(0), 2))
    sample(task.feedback(state, jnp.float32(0.1)))
    assert len(traces) == 1
