"""Agents against brute force: traces by `jax.grad` of the unrolled network, steps by their equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace import rl
from foretrace._checks import UserError
from foretrace.rl import environments
from oracles import quick_compilation  # noqa: F401

GAMMA, LAMBDA = 0.9, 0.7
WORLD = rl.Spaces(2, environments.Discrete(3))


def body(cell="gru", learner=ft.rtrl, **parts):
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    return rl.Body(
        lambda inputs: ft.cells.CELLS[cell](hidden=3, inputs=inputs, dtype=dtype), learner, **parts
    )


def stood_still():
    """A step rule that leaves the parameters alone."""
    return rl.StepRule(
        lambda params: (),
        lambda gradient, trace, error, state: (jax.tree.map(jnp.zeros_like, trace), state),
    )


def script(steps, seed=0, observations=2):
    """A stream of two episodes, the first one cut off, both with their last observation."""
    rng = np.random.default_rng(seed)
    first = np.zeros(steps, bool)
    first[[0, steps // 2]] = True
    truncated = np.roll(first, -1) & (np.arange(steps) == steps // 2 - 1)
    terminated = np.arange(steps) == steps - 1
    return rng.normal(size=(steps, observations)), rng.normal(size=steps), terminated, truncated, first


def played(agent, calls, key=0):
    state, states, actions = agent.init(jax.random.key(key)), [], []
    act = jax.jit(agent.act)
    for call in zip(*calls, strict=True):
        state, action = act(state, *call)
        states.append(state)
        actions.append(action)
    return states, actions


def assert_close(got, want, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def scaled(calls, discount):
    """What the agents perceive: observations and rewards divided as the equations say, in plain NumPy."""
    observations, rewards, _, _, first = calls
    count, mean, squares = 1, np.zeros(observations.shape[1]), np.ones(observations.shape[1])
    returns, total, seen, earned = (1, 0.0, 1.0), 0.0, [], []
    for o, r, begins in zip(observations, rewards, first, strict=True):
        count, old = count + 1, mean
        mean = old + (o - old) / count
        squares = squares + (o - old) * (o - mean)
        seen.append((o - mean) / np.sqrt(squares / count + 1e-8))
        total = 0.0 if begins else discount * total + r
        if not begins:
            n, m, s = returns
            new = m + (total - m) / (n + 1)
            returns = n + 1, new, s + (total - m) * (total - new)
        earned.append(0.0 if begins else r / np.sqrt(returns[2] / returns[0] + 1e-8))
    return np.array(seen), np.array(earned)


def inputs_of(calls, actions, discount=GAMMA, size=3):
    """The inputs of the networks: observation, last action as one-hot, reward."""
    seen, earned = scaled(calls, discount)
    before = [np.zeros(size), *(np.eye(size)[int(a)] for a in actions[:-1])]
    before = np.where(calls[4][:, None], 0, before)
    return jnp.asarray(np.concatenate([seen, before, earned[:, None]], axis=1)), earned


def unrolled(net_of, params, xs, start, end):
    """Outputs after the inputs start .. end, by nothing but the cell and the head."""
    encode, cell = net_of
    hidden = cell.initial_hidden()
    for t in range(start, end + 1):
        hidden = cell.step(params["cell"], hidden, encode(params, xs[t]))
    return cell.output(hidden) @ params["head"]["kernel"] + params["head"]["bias"]


def starts(first):
    return [max(s for s in np.flatnonzero(first) if s <= t) for t in range(len(first))]


def plain(cell="gru"):
    made = body(cell).cell(6)
    return (lambda params, x: x), made


@pytest.mark.parametrize("cell", ["gru", "mingru", "lstm"])
def test_traces_of_stream_ac_are_sums_of_gradients_of_the_unrolled_networks(x64, cell):
    agent = rl.stream_ac(
        WORLD, body(cell), discount=GAMMA, trace_decay=LAMBDA, entropy=0.3,
        value_rule=stood_still(), policy_rule=stood_still(),
    )  # fmt: skip
    calls = script(8)
    states, actions = played(agent, calls)
    xs, rewards = inputs_of(calls, actions)
    params, begin, net = states[0].learned.params, starts(calls[4]), plain(cell)
    traces = None
    for t in range(1, 8):
        s, a = begin[t - 1], actions[t - 1]
        if calls[4][t]:  # nothing is learned at an episode's first observation
            traces = None
            assert not any(leaf.any() for leaf in jax.tree.leaves(states[t].learned.traces))
            continue
        value = lambda p, s=s, t=t: unrolled(net, p, xs, s, t - 1)[0]  # noqa: E731
        ahead = unrolled(net, params["value"], xs, s, t)[0]
        error = rewards[t] + GAMMA * (not calls[2][t]) * ahead - value(params["value"])

        def wanted(p, s=s, t=t, a=a, error=error):
            logits = unrolled(net, p, xs, s, t - 1)
            log = jax.nn.log_softmax(logits)
            return log[a] - 0.3 * jnp.sign(error) * jnp.sum(jnp.exp(log) * log)

        gradients = {
            "policy": jax.grad(wanted)(params["policy"]),
            "value": jax.grad(value)(params["value"]),
        }
        traces = (
            jax.tree.map(lambda z, g: GAMMA * LAMBDA * z + g, traces, gradients) if traces else gradients
        )
        assert_close(states[t].error, error)
        assert_close(states[t].learned.traces, traces)


@pytest.mark.parametrize("inside", [False, True])
def test_credit_reaches_an_encoder_through_one_step_outside_and_all_steps_inside(x64, inside):
    agent = rl.td(
        WORLD, body("rnn", encoder=rl.normed_layer(4, sparsity=0.0), inside=inside), discount=GAMMA,
        trace_decay=0.0, rule=stood_still(),
    )  # fmt: skip
    calls = script(6)
    states, _ = played(agent, calls)
    xs, params = jnp.asarray(scaled(calls, GAMMA)[0]), states[0].learned.params["value"]
    cell, layer = ft.cells.rnn(hidden=3, inputs=4, dtype=jnp.float64), rl.normed_layer(4)
    for t in (2, 5):
        start = starts(calls[4])[t - 1]

        def value(params, t=t, start=start):
            hidden = cell.initial_hidden()
            weights = params["cell"] if inside else params
            for i in range(start, t):
                own = weights["encoder"]
                if not inside and i < t - 1:  # outside, the past of the encoder is not seen
                    own = jax.lax.stop_gradient(own)
                hidden = cell.step(weights["cell"], hidden, layer.apply(own, xs[i]))
            return (hidden @ params["head"]["kernel"] + params["head"]["bias"])[0]

        assert_close(states[t].learned.traces["value"], jax.grad(value)(params))


def test_stream_q_learns_from_the_best_action_and_cuts_its_trace_where_it_strayed(x64):
    agent = rl.stream_q(
        WORLD, body(), discount=GAMMA, trace_decay=LAMBDA, rule=stood_still(), explore=0.5, explore_steps=1
    )
    calls = script(14, seed=3)
    states, actions = played(agent, calls)
    xs, rewards = inputs_of(calls, actions)
    params, begin, net = states[0].learned.params["value"], starts(calls[4]), plain()
    trace, strays = None, 0
    for t in range(1, 14):
        s, a = begin[t - 1], actions[t - 1]
        if calls[4][t]:
            trace = None
            continue
        values = unrolled(net, params, xs, s, t - 1)
        gradient = jax.grad(lambda p, s=s, t=t, a=a: unrolled(net, p, xs, s, t - 1)[a])(params)
        trace = jax.tree.map(lambda z, g: GAMMA * LAMBDA * z + g, trace, gradient) if trace else gradient
        ahead = unrolled(net, params, xs, s, t).max()
        assert_close(states[t].error, rewards[t] + GAMMA * (not calls[2][t]) * ahead - values[a])
        strayed = int(a) != int(values.argmax())
        strays += strayed
        if strayed:
            trace = jax.tree.map(jnp.zeros_like, trace)
        assert_close(states[t].learned.traces["value"], trace)
    assert 0 < strays < 12


def test_an_update_of_qrc_is_its_equations(x64):
    rates = {"rate": 0.01, "correction_rate": 0.02, "regularisation": 0.5}
    agent = rl.qrc(WORLD, body(), discount=GAMMA, trace_decay=LAMBDA, explore=0.0, explore_steps=1, **rates)
    calls = script(8, seed=1)
    states, actions = played(agent, calls)
    xs, rewards = inputs_of(calls, actions)
    net = plain()
    # Two steps from the start, where the parameters have not moved before the first of them.
    w_q, w_h = (states[0].learned.params[name] for name in ("value", "correction"))
    a = actions[0]
    q = lambda w, t: unrolled(net, w, xs, 0, t)  # noqa: E731
    error = lambda w: rewards[1] + GAMMA * q(w, 1).max() - q(w, 0)[a]  # noqa: E731
    h = unrolled(net, w_h, xs, 0, 0)[a]
    grad_q, grad_h = jax.grad(lambda w: q(w, 0)[a])(w_q), jax.grad(lambda w: q(w, 0)[a])(w_h)
    if int(a) == int(q(w_q, 0).argmax()):
        assert_close(states[1].learned.traces, {"value": grad_q, "correction": grad_h})
    delta = error(w_q)
    step_h = jax.tree.map(lambda w, g: w + 0.02 * (delta * g - h * g - 0.5 * w), w_h, grad_h)
    step_q = jax.tree.map(
        lambda w, g, e: w + 0.01 * (-h * e + delta * g - h * g), w_q, grad_q, jax.grad(error)(w_q)
    )
    assert_close(states[1].learned.params, {"value": step_q, "correction": step_h})


def vectors():
    return {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}


def numbers(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("error", [0.1, -5.0])
def test_obgd_never_overshoots(x64, error):
    change, _ = rl.obgd(0.5, 3.0).update(vectors(), vectors(), error, ())
    z = numbers(vectors())
    bound = max(abs(error), 1) * abs(z).sum() * 0.5 * 3.0
    np.testing.assert_allclose(numbers(change), 0.5 / max(1, bound) * error * z, rtol=1e-12)


def test_adaptive_obgd_divides_by_the_size_of_its_steps(x64):
    rule, v, z = rl.adaptive_obgd(1.0, 2.0), 0.0, numbers(vectors())
    state = rule.init(vectors())
    for t, error in enumerate([0.3, -2.0, 0.7], start=1):
        change, state = rule.update(vectors(), vectors(), error, state)
        v = 0.999 * v + 0.001 * (error * z) ** 2
        scaled = z / np.sqrt(v / (1 - 0.999**t) + 1e-8)
        step = 1 / max(1, max(abs(error), 1) * abs(scaled).sum() * 2)
        np.testing.assert_allclose(numbers(change), step * error * scaled, rtol=1e-10)


@pytest.mark.parametrize("scale_error", [False, True])
def test_intentional_steps_are_their_equations(x64, scale_error):
    rule = rl.intentional(0.5, fading=0.6, scale_error=scale_error)
    state, v, sigma, squared, absolute = rule.init(vectors()), 0.0, 0.0, 1.0, 0.0
    for t, error in enumerate([0.3, -50.0, 0.7], start=1):
        gradient = jax.tree.map(lambda a, t=t: a * t, vectors())
        change, state = rule.update(gradient, vectors(), jnp.float64(error), state)
        g, z = numbers(gradient), numbers(vectors())
        v = 0.999 * v + 0.001 * g**2
        m = np.sqrt(v / (1 - 0.999**t)) + 1e-8
        sigma += (1 - 0.6) * ((g**2 / m).sum() - sigma)
        squared = 0.9998 * squared + 0.0002 * error**2
        absolute = 0.9998 * absolute + 0.0002 * abs(error)
        clipped = np.clip(error, -20 * np.sqrt(squared), 20 * np.sqrt(squared))
        if scale_error:
            clipped /= absolute / (1 - 0.9998**t) + 1e-8
        step = 0.5 / max(np.sqrt(sigma / (1 - 0.6**t) * (z**2 / m).sum()), 1e-8)
        np.testing.assert_allclose(numbers(change), step * clipped * z / m, rtol=1e-9)
    assert abs(clipped) < 50


def test_an_intentional_step_removes_its_part_of_the_error_of_a_linear_value(x64):
    """With one gradient for all time, and no trace, the value moves by rate times the error."""
    rule = rl.intentional(0.25, fading=0.0)
    x = jnp.array([1.0, 1.0, 1.0])
    change, _ = rule.update(x, x, jnp.float64(0.8), rule.init(x))
    np.testing.assert_allclose(x @ change, 0.25 * 0.8, rtol=1e-6)


def test_an_optax_rule_descends_along_the_trace(x64):
    rule = rl.by_optax(optax.sgd(0.1))
    change, _ = rule.update(vectors(), vectors(), 2.0, rule.init(vectors()))
    assert_close(change, jax.tree.map(lambda z: 0.2 * z, vectors()))


def test_a_gaussian_policy_has_the_density_and_entropy_of_its_numbers(x64):
    policy = rl.gaussian(2)
    outputs, action = jnp.array([0.3, -1.0, 0.2, 1.5]), jnp.array([0.1, 0.4])
    mean, std = np.array([0.3, -1.0]), np.log1p(np.exp([0.2, 1.5])) + 1e-5
    log = -0.5 * ((np.asarray(action) - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    assert policy.log_prob(outputs, action) == pytest.approx(log.sum())
    assert policy.entropy(outputs) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * std**2).sum())
    drawn = jax.vmap(policy.sample, in_axes=(0, None))(jax.random.split(jax.random.key(0), 4000), outputs)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.1)


def test_a_softmax_policy_has_the_entropy_of_its_probabilities(x64):
    outputs = jnp.array([0.3, -1.0, 2.0])
    p = np.exp(outputs) / np.exp(outputs).sum()
    policy = rl.discrete(3)
    assert policy.entropy(outputs) == pytest.approx(-(p * np.log(p)).sum())
    assert policy.log_prob(outputs, jnp.int32(1)) == pytest.approx(np.log(p[1]))


@pytest.mark.parametrize("inputs", [1, 3, 9, 10, 100])
def test_sparse_weights_leave_every_unit_an_input(inputs):
    weights = np.asarray(rl.sparse_uniform(jax.random.key(0), (inputs, 40), jnp.float32))
    kept = (weights != 0).sum(axis=0)
    assert (kept == max(1, inputs - int(np.ceil(0.9 * inputs)))).all()
    assert abs(weights).max() <= inputs**-0.5
    if inputs > 1:
        assert len({tuple(column) for column in (weights != 0).T}) > 1


AGENTS = {
    "stream_ac": partial(rl.stream_ac, WORLD),
    "stream_ac, Gaussian": partial(rl.stream_ac, rl.Spaces(2, environments.Continuous(2))),
    "stream_q": partial(rl.stream_q, WORLD),
    "qrc": partial(rl.qrc, WORLD),
    "td": partial(rl.td, WORLD),
}
LEARNERS = {
    "low_rank": lambda cell: ft.low_rank(cell, rank=1, block=2),
    "rolling_tbptt": lambda cell: ft.rolling_tbptt(cell, window=2),
}


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("learner", LEARNERS)
def test_an_agent_goes_on_bit_for_bit_from_what_was_saved(name, learner, tmp_path):
    agent = AGENTS[name](body("rnn", LEARNERS[learner], encoder=rl.normed_layer(3)))
    calls = [np.asarray(part, part.dtype if part.dtype == bool else np.float32) for part in script(8)]
    act, state = jax.jit(agent.act), agent.init(jax.random.key(0))
    for call in zip(*(part[:5] for part in calls), strict=True):
        state, _ = act(state, *call)
    ft.save(tmp_path, state)
    again = ft.load(tmp_path, like=jax.eval_shape(agent.init, jax.random.key(0)))
    for call in zip(*(part[5:] for part in calls), strict=True):
        (state, action), (again, same) = act(state, *call), act(again, *call)
        np.testing.assert_array_equal(action, same)
    key = lambda tree: tree._replace(key=jax.random.key_data(tree.key))  # noqa: E731
    for a, b in zip(jax.tree.leaves(key(state)), jax.tree.leaves(key(again)), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", AGENTS)
def test_a_scan_and_vmap_do_what_single_calls_do(name):
    agent = AGENTS[name](body("mingru"))
    calls = tuple(
        jnp.asarray(part, part.dtype if part.dtype == bool else jnp.float32) for part in script(6)
    )
    states, actions = played(agent, calls)

    def stream(seed):
        return jax.lax.scan(
            lambda state, call: agent.act(state, *call), agent.init(jax.random.key(seed)), calls
        )

    state, scanned = jax.jit(jax.vmap(stream))(jnp.array([1, 0]))
    np.testing.assert_allclose(scanned[1], np.array(actions), rtol=1e-4, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(state.learned.params), jax.tree.leaves(states[-1].learned.params), strict=True
    ):
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)
    act, state = rl.jit_act(agent), agent.init(jax.random.key(0))
    for action, call in zip(actions, zip(*calls, strict=True), strict=True):
        state, at_once = act(state, *call)
        np.testing.assert_allclose(at_once, action, rtol=1e-4, atol=1e-5)
    assert act._cache_size() == 1
    assert jnp.all(jax.random.key_data(state.key) == jax.random.key_data(states[-1].key))


def test_what_is_learned_survives_an_episodes_start_and_a_cut_keeps_its_bootstrap():
    agent = rl.td(WORLD, body(), discount=GAMMA, scale_observations=False)
    zeros, no, yes = np.zeros(2), False, True
    state = agent.init(jax.random.key(0))
    head = state.learned.params["value"]["head"]
    params = state.learned.params["value"] | {"head": head | {"bias": jnp.ones(1)}}
    state = state._replace(learned=state.learned._replace(params={"value": params}))
    state, _ = agent.act(state, zeros, 0.0, no, no, yes)
    again = state._replace(key=jax.random.clone(state.key))
    cut_off, _ = agent.act(again, zeros, 1.0, no, yes, no)
    over, _ = agent.act(state, zeros, 1.0, yes, no, no)
    assert cut_off.error == pytest.approx(1 + GAMMA - 1, abs=1e-5) and over.error == pytest.approx(
        0, abs=1e-5
    )
    begun, _ = agent.act(cut_off, zeros, 5.0, yes, no, yes)
    np.testing.assert_array_equal(
        begun.learned.params["value"]["head"]["bias"], cut_off.learned.params["value"]["head"]["bias"]
    )
    assert begun.error == 0


def test_several_recurrent_layers_learn():
    def layers(inputs):
        return ft.cells.stack([ft.cells.gru(hidden=3, inputs=inputs), ft.cells.mingru(hidden=2, inputs=3)])

    agent = rl.stream_ac(WORLD, rl.Body(layers, ft.rtrl))
    states, _ = played(agent, script(6))
    before, after = states[0].learned.params["policy"]["cell"], states[3].learned.params["policy"]["cell"]
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def in_a_row(inputs):
    return ft.cells.gru(hidden=2, inputs=inputs)._replace(output=lambda hidden: hidden[None])


def seen_by(agent, observation):
    return agent.act(agent.init(jax.random.key(0)), observation, 0.0, False, False, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.stream_q(rl.Spaces(2, environments.Continuous(1)), body()), "must be Discrete"),
        (lambda: rl.stream_ac(rl.Spaces(2, None), body()), "use td"),
        (lambda: rl.td(WORLD, body(), discount=1.5), "discount must be a number from 0 to 1; got 1.5"),
        (lambda: rl.td(WORLD, body(), trace_decay=-1.0), "trace_decay must be a number >= 0"),
        (lambda: rl.obgd(0.0), "rate must be a number > 0; got 0.0"),
        (lambda: rl.normed_layer(0), "encoder must be an int >= 1"),
        (
            lambda: rl.td(WORLD, rl.Body(lambda inputs: ft.cells.gru(hidden=2, inputs=7), ft.rtrl)),
            r"cell must take a vector of 2, .*build it with as many inputs as it is asked for",
        ),
        (
            lambda: rl.td(WORLD, rl.Body(in_a_row, ft.rtrl)),
            r"cell.output must give a vector for the head; got float32\[1, 2\]; give output=",
        ),
        (
            lambda: seen_by(rl.td(WORLD, body()), np.zeros(3)),
            r"observation must have shape \(2,\) at every step; got \(3,\)",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_a_remedy(make, message):
    with pytest.raises(UserError, match=message):
        make()


MAKERS = {
    "stream_ac": lambda learner, rule: rl.stream_ac(
        environments.t_maze(length=3), body(learner=learner), value_rule=rule, policy_rule=rule
    ),
    "stream_ac, encoder outside": lambda learner, rule: rl.stream_ac(
        environments.t_maze(length=3),
        body("lstm", learner, encoder=rl.normed_layer(4)),
        value_rule=rule,
        policy_rule=rule,
    ),
    "stream_q, encoder inside": lambda learner, rule: rl.stream_q(
        environments.t_maze(length=3),
        body(learner=learner, encoder=rl.normed_layer(4), inside=True),
        rule=rule,
    ),
    "qrc": lambda learner, rule: rl.qrc(
        environments.t_maze(length=3), body(learner=learner), rule=rule, correction_rule=rule
    ),
    "td": lambda learner, rule: rl.td(
        environments.trace_conditioning(), body("leaky", learner, features=jnp.tanh), rule=rule
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_streams_of_an_agent_give_the_gradients_that_it_takes(x64, name):
    make, steps = MAKERS[name], 24
    keeps_gradient = rl.StepRule(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, trace, error, state: (jax.tree.map(jnp.zeros_like, trace), gradient),
    )
    world = environments.trace_conditioning() if name == "td" else environments.t_maze(length=3)
    agent = make(ft.rtrl, keeps_gradient)
    state = agent.init(jax.random.key(0))
    params = jax.tree.map(lambda a: 3 * a + 0.1, state.learned.params)  # nothing hides in small numbers
    state = state._replace(learned=state.learned._replace(params=params), steps=jnp.int64(9))
    streams = rl.streams_of(make, world, state, steps=steps, key=jax.random.key(1))

    # The same life, with the learner in it.
    one = rl.living(agent, world, steps=1, discount=world.discount)
    life = one.init(jax.random.split(jax.random.key(1), 1)[0])
    mind = life.agent
    mind = mind._replace(learned=mind.learned._replace(params=params), steps=state.steps)
    life, chunk, taken, begins = life._replace(agent=mind), jax.jit(one.chunk), [], []
    for _ in range(steps + 1):
        begins.append(bool(life.percept[4]))
        life = chunk(life)[0]
        taken.append(life.agent.learned.rules)
    assert sum(begins) > 1 or name == "td"
    for network, stream in streams.items():
        np.testing.assert_array_equal(stream.restarts[:, 0], begins[:-1])
        learner = ft.rtrl(stream.cell)
        memory = learner.init(jax.random.key(0), stream.params)
        for t in range(steps):
            x, credit = jax.tree.map(lambda a, t=t: a[t, 0], (stream.xs, stream.credits))
            memory = learner.reset(memory, stream.restarts[t, 0])
            memory, _ = learner.step(stream.params, memory, x)
            got = learner.grad(stream.params, memory, credit)
            if begins[t + 1]:
                assert all(not a.any() for a in jax.tree.leaves(credit))
            else:
                assert_close(got, taken[t + 1][network]["cell"])
