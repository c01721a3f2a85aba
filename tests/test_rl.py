"""Lives of agents: what the records say, what a kill leaves, and worlds of others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace import experiments, rl
from foretrace._checks import UserError
from foretrace.cli import _lives, main
from foretrace.rl import environments
from foretrace.rl._play import play
from foretrace.rl.environments import Continuous, Discrete, Environment, Outcome
from foretrace.training import NonFiniteError

SMALL = ("--hidden", "4", "--chunk", "50", "--steps", "200")


def counting(bad_at=None):
    """Episodes of three steps; the return is 1 for each action 1, and it succeeds if the last one was."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(2)

    def step(state, action):
        reward = (action == 1).astype(jnp.float32)
        if bad_at is not None:
            reward = jnp.where(state == bad_at, jnp.nan, reward)
        no = jnp.zeros((), bool)
        return state + 1, Outcome(jnp.zeros(2), reward, state == 2, no)

    return Environment(reset, step, 2, Discrete(2), succeeded=lambda outcome: outcome.reward > 0)


def body(hidden=3):
    return rl.Body(lambda inputs: ft.cells.mingru(hidden=hidden, inputs=inputs), ft.rtrl)


@pytest.mark.parametrize("name", environments.ENVIRONMENTS)
def test_an_agent_lives_in_every_environment_in_double_precision(x64, name):
    world = environments.ENVIRONMENTS[name].make()
    make = rl.td if world.actions is None else rl.stream_ac
    life = rl.living(make(world, body()), world, steps=3, discount=0.9)
    start = jax.eval_shape(life.init, jax.random.key(0))
    after, loss, _ = jax.eval_shape(life.chunk, start)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), start
    )
    assert loss.shape == ()


class Always:
    """An agent that repeats one action, and remembers how it was called."""

    def __init__(self, action):
        def act(state, observation, reward, terminated, truncated, first):
            return state._replace(steps=state.steps + 1), jnp.int32(action)

        made = rl.stream_ac(rl.Spaces(2, Discrete(2)), body())
        self.agent = rl.Agent(made.init, act)


@pytest.mark.parametrize(("action", "earned"), [(0, 0.0), (1, 3.0)])
def test_a_record_has_the_episodes_their_mean_return_and_success(action, earned):
    life = rl.living(Always(action).agent, counting(), steps=40, discount=0.9)
    (_, _), (end, record) = rl.live(life, jax.random.key(0), 1)
    # Of 40 calls each episode takes four: one for each action, and one for the last observation.
    assert record["episodes"] == 10 and record["return"] == earned
    assert record["success"] == (1.0 if action else 0.0) and record["step"] == int(end.agent.steps) == 40


def test_a_life_that_goes_on_is_the_one_that_was_never_stopped():
    agent = rl.stream_ac(environments.t_maze(2), body())
    life = rl.living(agent, environments.t_maze(2), steps=50, discount=0.99)
    whole = list(rl.live(life, jax.random.key(0), 3))
    rest = list(rl.live(life, jax.random.key(0), 3, start=whole[1]))
    drop = lambda record: {k: v for k, v in record.items() if k != "seconds"}  # noqa: E731
    assert [drop(r) for _, r in rest[1:]] == [drop(r) for _, r in whole[2:]]
    for a, b in zip(
        jax.tree.leaves(whole[-1][0].agent.learned), jax.tree.leaves(rest[-1][0].agent.learned), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_error_of_predictions_is_that_of_the_rewards_that_came():
    """A prediction of nothing where every step is worth 1: the sum to come is 1 / (1 - gamma)."""
    world = Environment(
        lambda key: (jnp.int32(0), jnp.zeros(2)),
        lambda state, action: (
            state,
            Outcome(jnp.zeros(2), jnp.float32(1), jnp.zeros((), bool), jnp.zeros((), bool)),
        ),
        2,
        None,
    )
    made = rl.td(world, body())
    silent = rl.Agent(made.init, lambda state, *call: (state, jnp.float32(0)))
    life = rl.living(silent, world, steps=400, discount=0.9)
    *_, (_, record) = rl.live(life, jax.random.key(0), 1)
    assert record["squared_error"] == pytest.approx(100, rel=2e-3)  # what is left out is a thousandth


@pytest.mark.parametrize("skip", [False, True])
def test_a_reward_that_is_not_finite_ends_the_run_or_the_episode(skip):
    agent = rl.stream_ac(counting(), body())
    life = rl.living(agent, counting(bad_at=1), steps=40, discount=0.9, skip=skip)
    records = rl.live(life, jax.random.key(0), 1)
    next(records)
    if not skip:
        with pytest.raises(
            NonFiniteError, match=r"rewards and observations must be finite; got one .* step 0"
        ):
            next(records)
        return
    after, record = next(records)
    assert record["skipped"] == 20 and record["episodes"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.agent.learned))


def spoilt(agent):
    """An agent whose state has numbers that are not finite from the beginning."""

    def broken(leaf):
        return leaf * jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return rl.Agent(
        lambda key: jax.tree.map(broken, agent.init(key)), lambda state, *call: (state, jnp.int32(0))
    )


def test_an_agent_that_is_not_finite_is_named():
    bad = spoilt(rl.stream_ac(counting(), body()))
    records = rl.live(rl.living(bad, counting(), steps=40, discount=0.9), jax.random.key(0), 1)
    next(records)
    with pytest.raises(
        NonFiniteError, match="parameters, traces and influence must be finite; got one that"
    ):
        next(records)
    world = rl.from_gymnasium(Walk())
    bad = spoilt(rl.stream_q(world, body()))
    with pytest.raises(
        NonFiniteError, match="parameters, traces and influence must be finite; got one that"
    ):
        list(play(bad, Walk(), world, 0, steps=10, chunk=5))


def test_an_object_that_is_no_world_is_refused():
    with pytest.raises(
        UserError, match="env must have reset_env; got int without it; give an environment lik"
    ):
        rl.from_gymnax(3)


class Gymnax:
    """A world like gymnax's with five values, or six."""

    default_params = 3.0

    def __init__(self, values):
        self.values = values

    def observation_space(self, params):
        return type("Box", (), {"shape": (2, 2)})()

    def action_space(self, params):
        return type("Discrete", (), {"n": 2})()

    def reset_env(self, key, params):
        return jnp.zeros((2, 2)), jnp.float32(0)

    def step_env(self, key, state, action, params):
        state = state + action.astype(jnp.float32)
        ends = (state >= params,) if self.values == 5 else (state >= params, state >= params - 1)
        return jnp.full((2, 2), state), state, 2 * state, *ends, {}


@pytest.mark.parametrize("values", [5, 6])
def test_a_world_like_gymnax_is_played_whatever_the_number_of_its_values(values):
    world = rl.from_gymnax(Gymnax(values))
    assert world.observations == 4 and world.actions == Discrete(2)
    state, observation = world.reset(jax.random.key(0))
    assert observation.shape == (4,)
    ends = []
    for _ in range(3):
        state, outcome = world.step(state, jnp.int32(1))
        ends.append((bool(outcome.terminated), bool(outcome.truncated)))
    assert outcome.observation.tolist() == [3.0] * 4 and outcome.reward == 6
    assert ends == (
        [(False, False)] * 2 + [(True, False)]
        if values == 5
        else [(False, False), (False, True), (True, True)]
    )


class Walk:
    """A world like Gymnasium's, whose randomness is that of its seed."""

    def __init__(self, bad=False):
        self.observation_space = type("Box", (), {"shape": (2,), "low": 0, "high": 1})()
        self.action_space = type("Discrete", (), {"n": 2, "start": 5})()
        self.bad, self.seeds = bad, []

    def reset(self, seed):
        self.rng, self.time = np.random.default_rng(seed), 0
        self.seeds.append(seed)
        return self.rng.normal(size=2), {}

    def step(self, action):
        assert action in (5, 6)
        self.time += 1
        reward = np.nan if self.bad and self.time == 2 else float(action == 5)
        return self.rng.normal(size=2), reward, self.time == 4, False, {}


def test_a_game_that_goes_on_is_the_one_that_was_never_stopped():
    world = rl.from_gymnasium(Walk())
    agent = rl.stream_q(world, body(), explore_steps=20)
    env = Walk()
    whole = list(play(agent, env, world, 7, steps=30, chunk=9))
    assert [record["step"] for _, record in whole] == [0, 10, 20, 30] and env.seeds == [*range(7, 13)]
    rest = list(play(agent, Walk(), world, 7, steps=30, chunk=9, start=whole[1]))
    for (a, first), (b, second) in zip(whole[1:], rest, strict=True):
        assert first["return"] == second["return"] and first["games"] == second["games"]
        for x, y in zip(jax.tree.leaves(a.learned), jax.tree.leaves(b.learned), strict=True):
            np.testing.assert_array_equal(x, y)


def numbers(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_streams_of_a_game_give_the_gradients_that_the_agent_takes():
    def make(learner, rule):
        own = rl.Body(lambda inputs: ft.cells.gru(hidden=3, inputs=inputs), learner)
        return rl.stream_ac(rl.from_gymnasium(Walk()), own, value_rule=rule, policy_rule=rule)

    keeps_gradient = rl.StepRule(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, trace, error, state: (jax.tree.map(jnp.zeros_like, trace), gradient),
    )
    env, agent = Walk(), make(ft.rtrl, keeps_gradient)
    state = agent.init(jax.random.key(4))
    streams = rl.played_streams(make, env, state, steps=12, seed=4, lives=2)
    assert env.seeds == [4, 6, 8, 5, 7, 9]

    # The same lives, with the learner in them.
    world = rl.from_gymnasium(Walk())
    for life in (0, 1):
        mind = agent.init(jax.random.key(4 + life))
        mind = mind._replace(learned=mind.learned._replace(params=state.learned.params))
        restarts, taken = [], []
        for game in range(3):
            env = Walk()
            observation, call = env.reset(4 + life + 2 * game)[0], (0.0, False, False, True)
            for _ in range(5):
                mind, action = agent.act(mind, world.observe(observation), *call)
                restarts.append(call[3])
                taken.append(mind.learned.rules)
                observation, reward, *over, _ = env.step(world.act(action))
                call = (reward, *over, False)
        for network, (cell, params, *arrays) in streams.items():
            learner = ft.rtrl(cell)
            memory = learner.init(jax.random.key(0), params)
            np.testing.assert_array_equal(arrays[2][:, life], restarts[:12])
            for t in range(12):
                x, credit, restart = jax.tree.map(lambda a, at=(t, life): a[at], arrays)
                memory, _ = learner.step(params, learner.reset(memory, restart), x)
                wanted = jax.tree.leaves(taken[t + 1][network]["cell"])
                for got, own in zip(
                    jax.tree.leaves(learner.grad(params, memory, credit)), wanted, strict=True
                ):
                    np.testing.assert_allclose(got, 0 if restarts[t + 1] else own, rtol=1e-4, atol=1e-6)


def test_a_game_with_a_bad_number_ends_or_is_left():
    world = rl.from_gymnasium(Walk())
    agent = rl.stream_q(world, body(), explore_steps=20)
    with pytest.raises(
        NonFiniteError, match="rewards and observations must be finite; got one that is not at step 2"
    ):
        list(play(agent, Walk(bad=True), world, 0, steps=10, chunk=5))
    *_, (_, record) = play(agent, Walk(bad=True), world, 0, steps=10, chunk=5, skip=True)
    assert record["skipped"] >= 2 and record["episodes"] == 0


def test_boxes_are_flattened_symbols_become_vectors_and_actions_are_clipped():
    spaces = pytest.importorskip("gymnasium.spaces")
    world = type("World", (), {})()
    world.observation_space = spaces.Discrete(3, start=1)
    world.action_space = spaces.Box(-1, 1, (2,))
    played = rl.from_gymnasium(world)
    assert played.actions == Continuous(2) and played.observe(2).tolist() == [0, 1, 0]
    assert played.act(jnp.array([-3.0, 0.5])).tolist() == [-1, 0.5]
    world.observation_space = spaces.Box(0, 1, (2, 3))
    assert rl.from_gymnasium(world).observations == 6
    world.observation_space = spaces.Dict({})
    with pytest.raises(UserError, match="observation_space must be a box or discrete"):
        rl.from_gymnasium(world)
    world.observation_space, world.action_space = spaces.Discrete(2), spaces.MultiDiscrete([2, 2])
    with pytest.raises(UserError, match="action_space must be discrete, or a box of one axis"):
        rl.from_gymnasium(world)
    with pytest.raises(UserError, match="env must have observation_space; got int without it"):
        rl.from_gymnasium(3)


def test_the_command_leaves_a_run_and_says_what_it_does(tmp_path, capsys):
    out = tmp_path / "maze"
    words = [
        "rl",
        "t_maze",
        "--length",
        "2",
        "--learner",
        "low_rank:1/2",
        "--cell",
        "gru",
        *SMALL,
        "--out",
        str(out),
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "t_maze: 4 numbers to see, Discrete(size=3), 200 steps" in said
    assert "stream_ac, networks for policy and value: gru, 4 units" in said and "success" in said
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [50, 100, 150, 200]
    assert {"td_error", "episodes", "return", "success"} <= records[-1].keys()
    assert (out / "curve.png").exists() and json.loads((out / "config.json").read_text())[
        "environment"
    ] == "t_maze"


@pytest.mark.parametrize("agent", ["stream_q", "qrc", "td"])
def test_the_command_has_every_agent_layers_and_an_encoder(agent, tmp_path, capsys):
    world = "trace_patterning" if agent == "td" else "repeat_first"
    words = ["rl", world, "--agent", agent, "--layers", "2", "--encoder", "3", "--encoder-inside", *SMALL]
    assert main([*words, "--rule", "intentional", "--out", str(tmp_path / "run")]) == 0
    assert "3 features inside 2 layers of mingru" in capsys.readouterr().out


def test_learners_are_compared_as_the_memory_of_agents_and_finished_lives_stay(tmp_path, capsys):
    words = ["compare", "t_maze", "--length", "2", *SMALL, "--seeds", "2", "--out", str(tmp_path)]
    words += ["--learner", "rtrl", "--learner", "immediate"]
    assert main(words) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["rtrl", "immediate"] and len(results["rtrl"]["values"]) == 2
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert main([*words, "--resume"]) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == lines and (tmp_path / "comparison.png").exists()
    assert "success" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rl"], "environment must be one of memory_chain, "),
        (["rl", "maze"], "got 'maze'"),
        (["rl", "t_maze", "--agent", "td"], "agent must be stream_ac, stream_q or qrc here; got 'td'"),
        (["rl", "trace_patterning", "--agent", "stream_q"], "agent must be td here"),
        (["rl", "t_maze", "--length", "0"], "length must be an int >= 1"),
        (["rl", "t_maze", "--learner", "rtlr"], "learner must be one of"),
        (["rl", "t_maze", "--rate", "0"], "rate must be a number > 0"),
        (["rl", "t_maze", "--discount", "1.5"], "discount must be a number from 0 to 1"),
        (["rl", "t_maze", "--chunk", "0"], "chunk must be an int >= 1"),
        (["rl", "t_maze", "--seed", "-1"], "seed must be an int from 0"),
        (["compare", "t_maze", "--seeds", "0"], "seeds must be an int from 1 to 1000; got 0; use 3."),
        (["rl", "gym:NoSuchWorld-v0"], "environment must be one that Gymnasium has"),
    ],
)
def test_the_command_refuses_in_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not any(tmp_path.iterdir())


def test_lives_in_which_no_episode_ends_have_no_curve():
    with pytest.raises(UserError, match="steps must reach the end of an episode; got too few"):
        _lives._curve([[{"step": 10}]], "return")


def test_agents_are_timed_beside_the_same_one_with_the_present_step_alone(monkeypatch, capsys):
    monkeypatch.setattr(experiments._timing, "_TARGET", 0.001)
    setting = experiments.AgentSetting(2, 2, rl.Setting(hidden=4), ("rtrl",))
    monkeypatch.setitem(experiments.AGENT_SETTINGS, "tiny", setting)
    assert main(["bench", "tiny", "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert "steps/s" in said and "1.00 times tbptt:1" in said
    assert "rtrl, a call" in said and "rtrl, an empty call" in said


def test_without_gymnasium_its_worlds_are_refused_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert main(["rl", "gym:CartPole-v1"]) == 2
    assert "pip install 'foretrace[rl]' brings it" in capsys.readouterr().err


def lines_of(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("world", ["t_maze", "gym:CartPole-v1"])
def test_an_agent_that_is_killed_goes_on_bit_for_bit(world, tmp_path):
    pytest.importorskip("gymnasium")
    steps = "20000" if world == "t_maze" else "2000"
    command = [sys.executable, "-c", "import sys; from foretrace.cli import main; sys.exit(main())"]
    words = [*command, "rl", world, "--hidden", "4", "--chunk", "100", "--steps", steps]
    words += ["--checkpoint-every", "200"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*words, "--out", str(killed)], stdout=subprocess.DEVNULL)
    metrics, limit = killed / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 5):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert metrics.read_text().count("\n") < 200
    # Processes of their own, since a test's process compiles in another way.
    resumed = subprocess.Popen([*command, "resume", str(killed)], stdout=subprocess.DEVNULL)
    assert subprocess.run([*words, "--out", str(whole)], stdout=subprocess.DEVNULL).returncode == 0
    assert resumed.wait() == 0
    assert lines_of(metrics) == lines_of(whole / "metrics.jsonl")
    ends = [
        max(p for p in (run / "checkpoints").iterdir() if p.name.startswith("step"))
        for run in (killed, whole)
    ]
    first, second = (json.loads((end / "manifest.json").read_text()) for end in ends)
    assert ends[0].name == ends[1].name
    digests = [[leaf["sha256"] for leaf in _leaves(manifest)] for manifest in (first, second)]
    assert digests[0] == digests[1] and len(digests[0]) > 10


def _leaves(manifest):
    leaves = manifest["leaves"]
    return leaves if isinstance(leaves, list) else [leaves[name] for name in sorted(leaves)]
