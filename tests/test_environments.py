"""Every environment against a plain program that plays it step by step, POPGym and Gymnasium."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foretrace._checks import UserError
from foretrace.rl import environments
from foretrace.rl.environments import ENVIRONMENTS, Continuous, Discrete

CONTROL = [name for name, spec in ENVIRONMENTS.items() if spec.make().actions]


def play(environment, actions, seed=0):
    """State, observation, reward and ends of an episode, up to its last step or to the last action."""
    state, observation = environment.reset(jax.random.key(seed))
    step = jax.jit(environment.step)
    yield state, np.asarray(observation), 0.0, False, False
    for action in actions:
        state, (observation, reward, terminated, truncated) = step(state, action)
        yield state, np.asarray(observation), float(reward), bool(terminated), bool(truncated)
        if terminated or truncated:
            return


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_shapes_and_dtypes_stay_and_vmap_and_scan_play_it(name):
    environment = ENVIRONMENTS[name].make()
    keys = jax.random.split(jax.random.key(0), 3)
    state, observation = jax.vmap(environment.reset)(keys)
    action = jnp.zeros(3, int)

    def step(state, _):
        new, outcome = jax.vmap(environment.step)(state, action)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        return new, outcome

    state, outcome = jax.lax.scan(step, state, length=4)
    assert observation.shape == (3, environment.observations)
    assert outcome.observation.shape == (4, 3, environment.observations)
    assert outcome.observation.dtype == outcome.reward.dtype == jnp.float32
    assert outcome.terminated.dtype == outcome.truncated.dtype == bool
    assert isinstance(environment.actions, Discrete | Continuous | None)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_action_may_be_a_plain_int(name):
    environment = ENVIRONMENTS[name].make()
    starts = (environment.reset(jax.random.key(0))[0] for _ in range(2))
    (_, plain), (_, array) = map(environment.step, starts, (0, jnp.int32(0)))
    jax.tree.map(np.testing.assert_array_equal, plain, array)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_memory_chain_asks_once_for_the_bit_that_it_showed_twice(length, seed):
    actions = np.random.default_rng(seed).integers(0, 2, 2 * length + 2)
    episode = list(play(environments.memory_chain(length), actions, seed))
    assert len(episode) == length + 2  # the first observation, and length + 1 steps
    bit = 1 if episode[0][1][2] > 0 else 0
    for steps, (_, observation, reward, terminated, truncated) in enumerate(episode):
        t = max(steps - 1, 0)  # shown before time moves on
        wanted = [1 - t / length, float(t == length - 1), (2 * bit - 1) * (t == 0)]
        np.testing.assert_allclose(observation, wanted, atol=1e-6)
        last = steps == length + 1
        assert reward == (0 if not last else 1 if actions[length] == bit else -1)
        assert terminated == last and not truncated


def test_k_memory_chain_pays_for_each_bit_of_k_steps_ago():
    for seed in range(4):
        k = 3
        actions = np.random.default_rng(seed).integers(0, 2, 50)
        episode = list(play(environments.k_memory_chain(k), actions, seed))
        assert len(episode) == 8 * k + 1
        bits = [int(observation[0] > 0) for _, observation, *_ in episode]
        assert len(set(bits)) == 2
        for t, (_, observation, reward, terminated, truncated) in enumerate(episode):
            np.testing.assert_allclose(observation, [2 * bits[t] - 1, 1 - t / (8 * k)], atol=1e-6)
            named = t - 1  # the step that led here
            wanted = 0 if named < k else 1 if actions[named] == bits[named - k] else -1
            assert reward == wanted and terminated == (t == 8 * k) and not truncated


@pytest.mark.parametrize("seed", range(12))
def test_t_maze_is_a_corridor_with_a_sign(seed):
    rng, length = np.random.default_rng(seed), 3
    actions = rng.choice(3, 50, p=[0.7, 0.15, 0.15])
    episode = list(play(environments.t_maze(length), actions, seed))
    side = int(episode[0][1].argmax())
    place, over = 0, False
    for steps, (_, observation, reward, terminated, truncated) in enumerate(episode):
        if steps:
            assert not over
            action = actions[steps - 1]
            turned = place == length and action != 0
            wanted = (4.0 if action - 1 == side else -0.4) if turned else -0.1
            place = min(place + (action == 0), length)
            assert reward == pytest.approx(wanted) and terminated == turned
            assert truncated == (steps == 2 * length and not turned)
            over = terminated or truncated
        seen = side if place == 0 else 3 if place == length else 2
        np.testing.assert_array_equal(observation, np.eye(4)[seen])
    assert over


def test_both_signs_and_both_ends_of_a_maze_occur():
    environment, forward = environments.t_maze(2), [0, 0, 1]
    ends = [list(play(environment, forward, seed))[-1] for seed in range(8)]
    assert {round(reward, 3) for _, _, reward, *_ in ends} == {4.0, -0.4}
    assert {
        bool(environment.succeeded(environments.Outcome(*map(jnp.asarray, end[1:])))) for end in ends
    } == {True, False}


def runs(flags):
    """First steps and lengths of the stretches in which a signal is on, without those at the ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    pairs = [(a, b - a) for a, b in edges.reshape(-1, 2) if a > 0 and b < len(flags)]
    return np.array(pairs).T


def stream_of(environment, steps, seed=0):
    def step(state, _):
        state, outcome = environment.step(state, jnp.int32(0))
        return state, outcome

    state, first = environment.reset(jax.random.key(seed))
    _, outcomes = jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(state)
    assert not outcomes.terminated.any() and not outcomes.truncated.any()
    np.testing.assert_array_equal(outcomes.reward, outcomes.observation[:, 0])
    return np.concatenate([first[None], outcomes.observation])


@pytest.mark.parametrize("isi", [4, 20])
def test_trace_conditioning_has_the_times_and_rates_of_its_definition(isi):
    seen = stream_of(environments.trace_conditioning(isi), 60_000)
    events, lengths = runs(seen[:, 0])
    assert (lengths == 2).all()
    signals, lengths = runs(seen[:, 1])
    signals = np.concatenate([[0], signals])  # the stream begins with one
    assert seen[0, 1] == 1 and (lengths == 4).all()
    count = min(len(events), len(signals) - 1)
    waits, pauses = events[:count] - signals[:count], signals[1 : count + 1] - events[:count]
    assert {*waits} == {*range(isi - isi // 3, isi + isi // 3 + 1)}
    assert pauses.min() >= 80 and pauses.max() <= 120 and len({*pauses}) > 30
    for i in range(10):
        _, lengths = runs(seen[:, 2 + i])
        assert (lengths == 4).all()
        expected = (seen[:, 2 + i] == 0).sum() / (10 * (i + 1))
        assert abs(len(lengths) - expected) < 5 * math.sqrt(expected)


def test_trace_patterning_has_ten_patterns_that_announce_and_ten_that_do_not():
    seen = stream_of(environments.trace_patterning(), 60_000)
    patterns = np.flatnonzero(seen[:, 1:7].any(axis=1))
    assert (seen[patterns, 1:7].sum(axis=1) == 3).all()
    events = np.flatnonzero(seen[:, 0])
    announced, silent = set(), set()
    for start, end in itertools.pairwise(patterns):
        inside = events[(events > start) & (events < end)]
        (announced if len(inside) else silent).add(tuple(seen[start, 1:7]))
        if len(inside):
            assert len(inside) == 1 and 24 <= inside[0] - start <= 36 and 80 <= end - inside[0] <= 120
    assert len(announced) == len(silent) == 10 and not announced & silent
    for i in range(5):
        assert abs(seen[:, 7 + i].mean() - 1 / (10 * (i + 1))) < 0.01


@pytest.mark.parametrize("name", ["repeat_previous", "repeat_first"])
def test_repeat_is_what_popgym_plays_with_the_same_deck(name):
    envs = pytest.importorskip("popgym.envs")
    theirs = {"repeat_previous": envs.RepeatPreviousEasy, "repeat_first": envs.RepeatFirstEasy}[name]()
    actions = np.random.default_rng(0).integers(0, 4, 51)
    ours = list(play(ENVIRONMENTS[name].make(), actions))
    suits = np.asarray(ours[0][0].suits)
    theirs.reset(seed=0)
    # Their deck is dealt from its end; each of its cards gets the suit of ours.
    theirs.deck.suits_idx = theirs.deck.suits_idx.copy()
    theirs.deck.suits_idx[theirs.deck.idx[::-1]] = suits
    theirs.card = theirs.deck.show("player", ["suits_idx"])[0, -1]
    assert ours[0][1].argmax() == theirs.card and len(ours) == 52
    for action, (_, seen, reward, terminated, truncated) in zip(actions, ours[1:], strict=True):
        observation, wanted, end, cut, _ = theirs.step(action)
        assert seen.argmax() == observation and reward == pytest.approx(wanted, abs=1e-7)
        assert terminated == end and truncated == cut


def test_repeat_previous_names_the_card_that_was_newest_three_steps_before():
    state, *_ = next(play(environments.repeat_previous(), []))
    suits = np.asarray(state.suits)
    assert sorted(suits) == sorted([*range(4)] * 13)
    right = [0, 0, 0, *suits[:48]]
    total = sum(reward for _, _, reward, *_ in play(environments.repeat_previous(), right))
    assert total == pytest.approx(1, abs=1e-6)
    first = sum(reward for _, _, reward, *_ in play(environments.repeat_first(), [suits[0]] * 51))
    assert first == pytest.approx(1, abs=1e-6)


def test_stateless_cartpole_moves_as_in_gymnasium_and_pays_as_in_popgym():
    envs = pytest.importorskip("popgym.envs")
    for seed in range(5):
        theirs = envs.PositionOnlyCartPoleEasy()
        theirs.reset(seed=0)
        actions = np.random.default_rng(seed).integers(0, 2, 250)
        ours = list(play(environments.stateless_cartpole(), actions, seed))
        theirs.state = np.array(ours[0][0].physics, float)
        for action, (state, seen, reward, terminated, truncated) in zip(actions, ours[1:], strict=False):
            observation, wanted, end, cut, _ = theirs.step(int(action))
            np.testing.assert_allclose(seen, observation, atol=2e-4)
            np.testing.assert_allclose(state.physics, theirs.state, atol=2e-3)
            assert reward == pytest.approx(wanted) and (terminated, truncated) == (end, cut)
        assert terminated


def test_an_episode_of_the_cartpole_is_cut_off_where_it_does_not_fall():
    balance = environments.stateless_cartpole(limit=3)
    *_, last = play(balance, [0, 1, 0, 1])
    assert last[3:] == (False, True)


@pytest.mark.parametrize("name", CONTROL)
def test_two_keys_give_two_episodes(name):
    environment = ENVIRONMENTS[name].make()
    actions = [0] * 30
    first, *others = ([part[1] for part in play(environment, actions, seed)] for seed in range(8))
    assert any(not np.array_equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: environments.t_maze(0), "length must be an int >= 1; got 0"),
        (lambda: environments.k_memory_chain(-1), "length must be an int >= 1"),
        (lambda: environments.repeat_previous(52), "k must be below 52, the cards of a deck; got 52"),
        (lambda: environments.trace_conditioning(0), "isi must be an int >= 1"),
        (lambda: environments.stateless_cartpole(0), "limit must be an int >= 1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
