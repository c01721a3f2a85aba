"""Learning from one stream: each part against its definition, the whole against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foretrace import stream
from foretrace.stream import (
    _experts,
    _interval,
    _least_squares,
    _mixture,
    _network,
    _origin,
    _scale,
    _short_regression,
)


@pytest.fixture(autouse=True)
def promotion():
    """Optax relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


CONFIG = stream.Config(
    cell="elstm",
    hidden=3,
    features=0,
    horizon=1,
    lags=2,
    target="auto",
    period=0,
    learning_rate=0.01,
    coverage=0.9,
)


def wave(n, seed=0, size=1.0):
    noise = np.random.default_rng(seed).normal(size=n)
    return (size * (np.sin(np.arange(n) / 3) + 0.1 * noise)).astype(np.float32)


def results(config, y):
    compiled = stream.forecasting(config)
    x = stream.pairs(np.zeros((len(y), config.features)))
    state, outputs = stream.run_rows(compiled, compiled.init(jax.random.key(0)), x, stream.pairs(y))
    return compiled.unpack(state), stream.ForecastResult.unpack(outputs)


def run(config, y):
    state, result = results(config, y)
    return state, result.previous_forecast


class TestScale:
    def test_the_first_moments_are_those_of_all_samples(self):
        values = np.random.default_rng(0).normal(3, 2, (50, 2)).astype(np.float32)
        known = _scale.init(2)
        for row in values:
            known = _scale.update(known, jnp.asarray(row))
        np.testing.assert_allclose(known.mean, values.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(known.variance, values.var(axis=0), rtol=1e-4)

    def test_what_is_not_finite_is_left_out(self):
        known = _scale.update(_scale.init(2), jnp.array([1.0, 5.0]))
        known = _scale.update(known, jnp.array([3.0, jnp.nan]))
        np.testing.assert_allclose(known.mean, [2, 5])
        np.testing.assert_allclose(known.samples, [2, 1])

    @pytest.mark.parametrize("unit", [1e-15, 1.0, 1e15, 1e17])
    def test_standard_values_do_not_depend_on_the_unit(self, unit):
        values = np.random.default_rng(1).normal(1, 1, (20, 1)).astype(np.float32)
        plain, scaled = _scale.init(1), _scale.init(1)
        for row in values:
            plain = _scale.update(plain, jnp.asarray(row))
            scaled = _scale.update(scaled, jnp.asarray(np.float32(unit) * row))
        found = _scale.standard(scaled, jnp.asarray(np.float32(unit) * values[0]))
        np.testing.assert_allclose(found, _scale.standard(plain, jnp.asarray(values[0])), rtol=1e-3)


class TestLeastSquares:
    def test_it_is_the_weighted_ridge_regression(self, x64):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 3)), 0.2 * rng.normal(size=40)
        known = _least_squares.init(1, 3, shared=True)
        known = jax.tree.map(lambda a: a.astype(float), known)
        for row, target in zip(x, y, strict=True):
            known = _least_squares.fit(known, jnp.asarray(row)[None], jnp.asarray([target]))
        kept = 0.999 ** np.arange(39, -1, -1)
        left = (x * kept[:, None]).T @ x + 0.999**40 * np.eye(3) / 0.1
        right = (x * kept[:, None]).T @ y
        np.testing.assert_allclose(known.weights[0], np.linalg.solve(left, right), rtol=1e-6)
        np.testing.assert_allclose(known.covariance[0], np.linalg.inv(left), rtol=1e-6)

    def test_an_outlier_moves_it_no_further_than_an_error_of_one(self):
        known = _least_squares.init(1, 2, shared=True)
        features = jnp.array([[1.0, 2.0]])
        small = _least_squares.fit(known, features, jnp.array([1.0])).weights
        for huge in (1e3, 1e6):
            moved = _least_squares.fit(known, features, jnp.array([huge])).weights
            assert float(jnp.linalg.norm(moved)) < 2 * float(jnp.linalg.norm(small)) + 0.5

    def test_it_stays_finite_where_nothing_moves(self):
        known = _least_squares.init(2, 4, shared=False)
        features = jnp.array([[1.0, 0, 0, 0], [0, 1.0, 0, 1e-8]])

        def step(known, _):
            return _least_squares.fit(known, features, jnp.array([1.0, -1.0])), None

        known, _ = jax.lax.scan(step, known, length=100_000)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(known))
        np.testing.assert_allclose(_least_squares.predict(known, features), [1, -1], rtol=1e-3)

    def test_it_stays_sound_where_features_are_rare_and_large(self):
        rng = np.random.default_rng(0)
        rows = np.concatenate([np.ones((20_000, 1)), 5.0 * (rng.random((20_000, 30)) < 0.005)], axis=1)

        def step(known, row):
            known = _least_squares.fit(known, row[None], row[3:4] / 5)
            return known, jnp.max(abs(known.weights))

        start = _least_squares.init(1, 31, shared=True)
        known, largest = jax.lax.scan(step, start, jnp.asarray(rows, jnp.float32))
        assert float(jnp.max(largest)) < 2
        assert float(jnp.min(jnp.linalg.eigvalsh(known.covariance[0]))) > -1e-4


class TestExperts:
    def test_the_mixture_is_nearly_as_good_as_the_best_expert(self):
        rng = np.random.default_rng(0)
        truth = rng.normal(size=2000).astype(np.float32)
        errors = rng.normal(size=(2000, 3)).astype(np.float32) * np.array([0.1, 1, 3], np.float32)
        known, losses = _experts.init(1, 3), []
        judge = jax.jit(_experts.update_weights)
        for value, error in zip(truth, errors, strict=True):
            said, weights = (value + error)[None], _experts.weights(known)
            together = (weights * said).sum(axis=1)
            losses.append(abs(float(together[0]) - value))
            known = judge(known, said, together, jnp.array([value]), jnp.ones(1))
        assert np.mean(losses) < np.mean(abs(errors[:, 0])) + 4 / np.sqrt(2000)
        np.testing.assert_allclose(jnp.sum(_experts.weights(known)), 1, rtol=1e-6)

    def test_an_unknown_truth_teaches_nothing(self):
        known = _experts.init(1, 2)
        after = _experts.update_weights(
            known, jnp.ones((1, 2)), jnp.ones(1), jnp.array([jnp.nan]), jnp.ones(1)
        )
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), known, after))


class TestMixture:
    def after(self, errors, truth, few=2):
        """The mixture after forecasts that were wrong by errors (n, H, experts), and all that it said."""

        def step(mixture, row):
            error, values = row
            predictions = values[:, None] + error
            combined = _mixture.combine(mixture, predictions)
            return _mixture.update(mixture, predictions, combined, values, jnp.ones(len(values))), combined

        start = _mixture.init(errors.shape[1], few, errors.shape[2])
        return jax.lax.scan(step, start, (jnp.asarray(errors), jnp.asarray(truth)))

    def test_its_weights_are_those_of_its_forecast(self, x64):
        rng = np.random.default_rng(0)
        mixture, _ = self.after(rng.normal(size=(40, 3, 5)), rng.normal(size=(40, 3)))
        predictions, weights = rng.normal(size=(3, 5)), _mixture.weights(mixture)
        np.testing.assert_allclose(jnp.sum(weights, axis=1), 1, rtol=1e-12)
        combined = _mixture.combine(mixture, jnp.asarray(predictions))
        np.testing.assert_allclose(jnp.sum(weights * predictions, axis=1), combined[:, -1], rtol=1e-12)

    def test_it_follows_the_expert_that_has_become_the_best(self):
        rng = np.random.default_rng(1)
        sizes = np.where(np.arange(1200)[:, None] < 600, [0.1, 1, 1, 1], [1, 1, 1, 0.1])
        errors = rng.normal(size=(1200, 4, 4)) * sizes[:, None]
        truth = rng.normal(size=(1200, 4))
        _, said = self.after(errors, truth)
        late = np.mean(abs(said[700:, :, -1] - truth[700:]))
        assert late < 1.3 * np.mean(abs(errors[700:, :, 3]))

    def test_an_expert_that_has_become_another_counts_for_nothing_at_first(self):
        rng = np.random.default_rng(2)
        errors = rng.normal(size=(200, 2, 4)) * np.array([1, 1, 0.1, 1])
        mixture, _ = self.after(errors, rng.normal(size=(200, 2)))
        before = _mixture.weights(mixture)[:, 2]
        after = _mixture.weights(_mixture.begin_anew(mixture, jnp.array([False, False, True, False])))[:, 2]
        assert np.all(np.asarray(before) > 0.5)
        assert np.all(np.asarray(after) < before)


class TestShortRegression:
    def test_it_sees_the_seasons_of_every_time_ahead_and_forgets_one_that_changed(self):
        lags, baselines = jnp.arange(24.0), jnp.arange(8.0).reshape(2, 4)
        unit, phases = jnp.array([1.0, 2.0]), jnp.array([0.25, jnp.nan, jnp.nan])
        inputs = _short_regression.inputs(lags, baselines, jnp.array(1.0), unit, phases)
        fit = _short_regression.init(2, 24)
        assert inputs.shape == fit.weights.shape
        np.testing.assert_allclose(inputs[:, -4:], [[-1, 0, 1, 2], [1.5, 2, 2.5, 3]])
        fit = _short_regression.begin_anew(
            fit._replace(weights=jnp.ones_like(fit.weights)), jnp.array([False, True])
        )
        assert np.all(np.asarray(fit.weights)[:, -2:] == 0)
        assert np.all(np.asarray(fit.weights)[:, -4:-2] == 1)


def intervals(errors, coverage=0.9, late=0):
    """Offsets that were reported for each error, (n, 2), each of which is known `late` steps later."""

    def step(carry, error):
        state, pending = carry
        offsets = _interval.offsets(state)
        pending = jnp.concatenate([offsets[None], pending])
        errors = jnp.full(late + 1, jnp.nan).at[-1].set(error)
        reported = jnp.full((late + 1, 2), jnp.inf).at[-1].set(pending[-1][-1])
        state = _interval.update(state, errors, coverage, reported)
        return (state, pending[:-1]), (pending[-1][-1], state.tail)

    start = _interval.init(late + 1, coverage), jnp.full((late, late + 1, 2), jnp.inf)
    _, (offsets, tails) = jax.lax.scan(step, start, jnp.asarray(errors, jnp.float32))
    return np.asarray(offsets), np.asarray(tails)


class TestInterval:
    @pytest.mark.parametrize("coverage", [0.5, 0.9])
    def test_it_covers_as_often_as_it_promises_even_if_errors_grow(self, coverage):
        errors = np.random.default_rng(0).standard_t(3, 4000) * np.linspace(1, 5, 4000) + 0.5
        offsets, _ = intervals(errors, coverage)
        assert abs(np.mean((offsets[:, 0] <= errors) & (errors <= offsets[:, 1])) - coverage) < 0.02

    @pytest.mark.parametrize("late", [5, 23])
    def test_it_covers_as_often_where_errors_come_late_and_in_bursts(self, late):
        noise = np.random.default_rng(0).normal(size=6000)
        errors = np.convolve(noise, np.ones(late + 1))[:6000]  # of a random walk so many steps ahead
        offsets, _ = intervals(errors, 0.9, late)
        assert abs(np.mean((offsets[:, 0] <= errors) & (errors <= offsets[:, 1])) - 0.9) < 0.03

    @pytest.mark.parametrize("errors", [np.ones(300), np.zeros(300), np.arange(300) % 50 == 0])
    def test_a_forecast_lies_inside_and_there_is_none_at_first(self, errors):
        offsets, _ = intervals(errors)
        assert np.all(np.isinf(offsets[:2])) and np.all(np.isfinite(offsets[2:]))
        assert np.all(offsets[:, 0] < 0) and np.all(offsets[:, 1] > 0)

    def test_the_tail_is_uniform_for_errors_of_one_kind(self):
        _, tails = intervals(np.random.default_rng(0).normal(size=3000))
        np.testing.assert_allclose(np.quantile(tails[1000:], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


class TestForecast:
    def test_what_was_said_of_a_value_was_said_before_it(self):
        y = wave(60)
        other = np.concatenate([y[:40], -y[40:]])
        config = CONFIG._replace(horizon=3)
        (_, one), (_, two) = run(config, y), run(config, other)
        # Row t, horizon h was said after value t - h - 1; values differ from 40 on.
        np.testing.assert_array_equal(one[:41], two[:41])
        for h in range(3):
            np.testing.assert_array_equal(one[: 41 + h, h], two[: 41 + h, h])
            assert one[41 + h, h] != two[41 + h, h]

    def test_the_cell_learns_with_the_gradient_of_the_whole_past(self):
        made = _network.network_parts("elstm", 3, 2, 0.01)
        net = _network.init(made, jax.random.key(0), {"change": (1, 3)})
        xs = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32)
        cell = net.params["cell"]

        def credit(hidden):
            return jnp.sum(jnp.sin(hidden))

        for x in xs:
            net = _network.step(made, net, x)
        found = made.learner.grad(cell, net.learner, jax.grad(credit)(net.learner.hidden))

        def unrolled(cell):
            hidden, _ = jax.lax.scan(lambda h, x: (made.cell.step(cell, h, x), None), jnp.zeros(3), xs)
            return credit(hidden)

        wanted = jax.grad(unrolled)(cell)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)

    def test_it_learns_a_wave(self):
        y = wave(1536)
        for horizon in (1, 4):
            _, result = results(CONFIG._replace(hidden=8, horizon=horizon), y)
            errors = abs(result.previous_forecast[1000:] - y[1000:, None]).mean(axis=0)
            persistence = [abs(y[1000:] - y[1000 - h : -h]).mean() for h in range(1, horizon + 1)]
            assert np.all(errors < 0.8 * np.array(persistence))
            for h in range(1, horizon + 1):
                inside = (result.lower[:-h, h - 1] <= y[h:]) & (y[h:] <= result.upper[:-h, h - 1])
                assert abs(inside.mean() - 0.9) < 0.03

    def test_a_season_is_learned_where_one_is_named(self):
        y = np.tile(np.random.default_rng(0).normal(size=32), 16).astype(np.float32)
        _, said = run(CONFIG._replace(period=32, lags=1), y)
        assert abs(said[200:, 0] - y[200:]).mean() < 0.02

    def test_a_stream_that_rests_for_long_is_said_within_its_bounds(self):
        y, rng = np.zeros(5120, np.float32), np.random.default_rng(0)
        events = np.arange(100, 5000, 173)
        y[events] = rng.choice([-1.0, 1.0], len(events))
        _, said = run(CONFIG._replace(hidden=8, lags=24), y)
        assert np.abs(said).max() < 30

    @pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
    def test_the_unit_of_the_values_does_not_matter(self, size):
        y = wave(60)
        _, plain = run(CONFIG, y)
        _, scaled = run(CONFIG, np.float32(size) * y)
        np.testing.assert_allclose(scaled / np.float32(size), plain, rtol=0.05, atol=0.05)

    @pytest.mark.parametrize(
        "y",
        [
            np.zeros(50),
            np.full(50, 7.0),
            np.r_[np.zeros(30), 1e30, np.zeros(30)],
            np.r_[3.0, [np.nan] * 40],
        ],
    )
    def test_odd_streams_stay_finite(self, y):
        state, said = run(CONFIG._replace(horizon=2), y.astype(np.float32))
        assert np.isfinite(said).all()
        # Intervals and errors that are not known yet are infinite, never NaN.
        known = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32]
        may_be_infinite = state.state.interval.past.shape, state.offsets.shape
        assert not any(bool(jnp.any(jnp.isnan(leaf))) for leaf in known)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in known if leaf.shape not in may_be_infinite)

    def test_a_value_that_is_unknown_is_replaced_by_what_was_said(self):
        y = wave(20)
        compiled = stream.forecasting(CONFIG)
        state, _ = run(CONFIG, y)
        packed, _ = compiled.learn(compiled.pack(state), stream.pairs([]), stream.pairs(np.nan))
        np.testing.assert_allclose(compiled.unpack(packed).state.recent[0], state.forecast[0], rtol=1e-6)


class TestOrigin:
    @pytest.mark.parametrize("offset", [1e6, 1e8, -3e9])
    def test_differences_and_what_is_added_back_keep_the_digits(self, offset):
        values = offset + np.array([0.0, 0.25, -3.0, 1000.125])
        first = _origin.start(_origin.init(1), jnp.asarray(stream.pairs(values[:1])), jnp.zeros(1))
        for value in values:
            change = _origin.difference(jnp.asarray(stream.pairs([value])), first)
            np.testing.assert_allclose(change, [value - offset], rtol=1e-6)
            packed = np.concatenate([change, *first])
            np.testing.assert_allclose(stream.from_pairs(packed), [value], rtol=1e-13)
        moved, shift = _origin.follow(first, jnp.array([123456.78]), jnp.ones(1))
        assert shift[0] == jnp.float32(123456.78)
        np.testing.assert_allclose(_origin.between(moved, first), shift, rtol=1e-6)
        assert _origin.follow(first, jnp.array([123.0]), jnp.ones(1))[1] == 0

    @pytest.mark.parametrize("drift", [0.0, 40.0])
    def test_a_series_far_from_zero_is_forecast_as_well_and_covered_as_often(self, drift):
        y = wave(600).astype(float) + drift * np.arange(600)
        _, near = results(CONFIG, y)
        _, far = results(CONFIG, y + 1e8)
        errors = [abs(r.previous_forecast[100:, 0] - v[100:]) for r, v in ((near, y), (far, y + 1e8))]
        np.testing.assert_allclose(errors[1].mean(), errors[0].mean(), rtol=0.02)
        inside = [
            np.mean((r.lower[100:-1, 0] <= v[101:]) & (v[101:] <= r.upper[100:-1, 0]))
            for r, v in ((near, y), (far, y + 1e8))
        ]
        np.testing.assert_allclose(inside[1], inside[0], atol=0.02)

    def test_an_origin_follows_values_that_move_but_no_single_glitch(self):
        y = np.r_[wave(50), 1e7 + wave(50)].astype(float)
        state, _ = results(CONFIG, y)
        assert abs(sum(float(part[0]) for part in state.state.origin) - 1e7) < 10
        y = wave(100).astype(float)
        y[50] = 1e12
        state, _ = results(CONFIG, y)
        assert abs(sum(float(part[0]) for part in state.state.origin)) < 10

    def test_a_feature_far_from_zero_counts_as_one_near_it(self):
        rng = np.random.default_rng(0)
        x, answers = rng.normal(size=(400, 1)), []
        y = 5 + 2 * x[:, 0]
        compiled = stream.regression(CONFIG._replace(features=1))
        for offset in (0, 1.7e9):
            state, weights = compiled.init(jax.random.key(0)), np.ones(len(y), np.float32)
            rows = stream.pairs(x + offset), stream.pairs(y), weights
            answers.append(stream.from_pairs(stream.run_rows(compiled, state, *rows)[1])[:, 0])
        np.testing.assert_allclose(answers[1][50:], answers[0][50:], atol=0.05)


class TestRegression:
    def test_it_learns_from_features_and_ignores_those_that_are_unknown(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(1536, 2)).astype(np.float32)
        y = (5 + 2 * x[:, 0]).astype(np.float32)
        x[rng.random(1536) < 0.1, 1] = np.nan
        compiled = stream.regression(CONFIG._replace(features=2))
        state, weights = compiled.init(jax.random.key(0)), np.ones(len(y), np.float32)
        _, outputs = stream.run_rows(compiled, state, stream.pairs(x), stream.pairs(y), weights)
        said = stream.from_pairs(outputs)[:, 0]
        assert abs(said[500:] - y[500:]).mean() < 0.1

    def test_an_answer_is_what_learning_says_was_said(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(30, 2)).astype(np.float32), wave(30)
        compiled = stream.regression(CONFIG._replace(features=2))
        state = compiled.init(jax.random.key(0))
        for row, value in zip(stream.pairs(x), stream.pairs(y), strict=True):
            before = stream.from_pairs(compiled.predict(state, row))[0]
            state, output = compiled.learn(state, row, value, np.float32(1))
            np.testing.assert_allclose(stream.from_pairs(output)[0], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", stream.CELLS)
def test_every_cell_learns(cell):
    y = wave(512)
    _, said = run(CONFIG._replace(cell=cell, hidden=4), y)
    assert np.isfinite(said).all()
    assert abs(said[400:, 0] - y[400:]).mean() < abs(np.diff(y)).mean()


def test_nothing_is_compiled_twice():
    compiled = stream.forecasting(CONFIG)
    state = compiled.init(jax.random.key(0))
    x = stream.pairs([])
    for value in stream.pairs(wave(5)):
        state, _ = compiled.learn(state, x, value)
    assert compiled.learn._cache_size() == 1
    assert stream.forecasting(CONFIG._replace()) is compiled


def test_rows_in_one_go_are_rows_one_by_one():
    y = wave(270)
    compiled = stream.forecasting(CONFIG)
    state = compiled.init(jax.random.key(0))
    single = []
    for value in stream.pairs(y):
        state, said = compiled.learn(state, stream.pairs([]), value)
        single.append(stream.ForecastResult.unpack(np.asarray(said)).previous_forecast)
    _, said = run(CONFIG, y)
    np.testing.assert_allclose(said, np.stack(single), rtol=1e-3, atol=1e-3)
