"""Seasons and calendars: against their definitions, and what a forecast gains by them."""

import datetime
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from foretrace import stream
from foretrace.forecast import Calendar, forecast_file, stamp_of
from foretrace.river import RecurrentForecaster
from foretrace.stream import _calendar, _least_squares, _seasons


def after(y, period, horizon=3, named=None):
    """The seasons after the values y; those at which a season changed."""

    def step(seasons, row):
        value, time, names = row
        seasons, has_changed = _seasons.add(seasons, value, time, names, horizon)
        return seasons, has_changed

    names = jnp.zeros((len(y), 2)) if named is None else jnp.tile(jnp.asarray(named, float), (len(y), 1))
    rows = jnp.asarray(y, float), jnp.arange(len(y)), names
    return jax.lax.scan(step, _seasons.init(period, horizon), rows)


class TestSeasons:
    @pytest.mark.parametrize("period, horizon", [(7, 3), (4, 9), (1, 2)])
    def test_a_baseline_is_the_value_one_season_before_or_as_many_as_it_takes(self, x64, period, horizon):
        y = np.random.default_rng(0).normal(size=50)
        seasons, _ = after(y, period, horizon)
        for late in (0, horizon):
            t = len(y) - 1 - late
            ahead = _seasons.baselines(seasons, jnp.array(t + 1), horizon).ahead
            wanted = [y[t + h - period * math.ceil(h / period)] for h in range(1, horizon + 1)]
            np.testing.assert_allclose(ahead[:, 2], wanted, rtol=1e-12)
            np.testing.assert_allclose(ahead[:, 0], y[t], rtol=1e-12)  # there is no short season

    def test_a_mean_forgets_a_season_by_a_third(self, x64):
        period, y = 5, np.random.default_rng(1).normal(size=43)
        seasons, _ = after(y, period)
        means = np.zeros_like(y)
        for t, value in enumerate(y):
            rounds = t // period
            rate = max(1 / 3, 1 / (1 + rounds))
            means[t] = value if rounds == 0 else means[t - period] + rate * (value - means[t - period])
        found = _seasons.baselines(seasons, jnp.array(len(y)), 3)
        np.testing.assert_allclose(found.ahead[:, 3], [means[len(y) - 1 + h - period] for h in (1, 2, 3)])
        wanted = [y[-1] - y[-1 - period], y[-1] - means[-1 - period], y[-2] - y[-2 - period]]
        np.testing.assert_allclose(found.deviations, [0, 0, 0, *wanted], atol=1e-12)

    def test_before_a_season_has_passed_there_is_none(self):
        seasons, _ = after(np.arange(6.0), 10)
        found = _seasons.baselines(seasons, jnp.array(6), 3)
        assert np.all(np.asarray(found.ahead) == 5.0)
        assert not np.any(found.deviations)

    @pytest.mark.parametrize("noise", [0.0, 0.3])
    def test_a_day_and_a_week_are_found(self, noise):
        t, rng = np.arange(24 * 7 * 8), np.random.default_rng(0)
        day = np.sin(2 * np.pi * t / 24) * np.where(t // 24 % 7 < 5, 1.0, 0.4) + noise * rng.normal(
            size=len(t)
        )
        seasons, _ = after(day, stream.FOUND)
        assert seasons.periods.tolist() == [24, 168]

    def test_a_clear_day_is_found_after_two_and_a_clear_week_a_day_after_it_has_passed(self):
        t = np.arange(24 * 7 * 2)
        y = np.sin(2 * np.pi * t / 24) * np.where(t // 24 % 7 < 5, 1.0, 0.4)
        assert after(y[:48], stream.FOUND)[0].periods.tolist() == [24, 0]
        assert after(y[:192], stream.FOUND)[0].periods.tolist() == [24, 168]

    def test_one_season_is_found_and_only_one(self):
        t, rng = np.arange(1500), np.random.default_rng(0)
        seasons, _ = after(np.sin(2 * np.pi * t / 37) + 0.2 * rng.normal(size=len(t)), stream.FOUND)
        assert seasons.periods.tolist() == [37, 0]

    @pytest.mark.parametrize("kind", ["noise", "trend", "constant"])
    def test_none_is_found_where_there_is_none(self, kind):
        noise = np.random.default_rng(0).normal(size=1500)
        y = {"noise": noise, "trend": np.arange(1500) + noise, "constant": np.ones(1500)}[kind]
        seasons, _ = after(y, stream.FOUND)
        assert seasons.periods.tolist() == [0, 0]

    def test_a_season_that_the_calendar_names_counts_once_a_value_says_something_of_a_time_ahead(self):
        y = np.random.default_rng(0).normal(size=300)
        seasons, has_changed = after(y, stream.FOUND, horizon=3, named=[24, 168])
        assert np.argwhere(has_changed).tolist() == [[24 - 3, 0], [168 - 3, 1]]
        assert seasons.periods.tolist() == [24, 168]

    def test_another_season_takes_a_free_place_beside_one_that_means_little(self):
        t, rng = np.arange(2000), np.random.default_rng(0)
        y = np.sin(2 * np.pi * t / 37) + 0.1 * rng.normal(size=len(t))
        seasons, _ = after(y, stream.FOUND, named=[0, 24])
        assert seasons.periods.tolist() == [37, 24]

    def test_the_distance_over_so_many_rows_is_a_mean(self, x64):
        y = np.random.default_rng(0).normal(size=80)
        seasons, _ = after(y, stream.FOUND)
        wanted = [abs(y[lag:] - y[:-lag]).mean() for lag in (1, 2, 30)]
        np.testing.assert_allclose(seasons.distances[jnp.array([0, 1, 29])], wanted, rtol=1e-10)

    def test_many_streams_side_by_side_choose_as_each_alone(self):
        t = np.arange(600)
        ys = np.stack([np.sin(2 * np.pi * t / n) for n in (12, 31, 50)])
        side_by_side, _ = jax.vmap(lambda y: after(y, stream.FOUND))(jnp.asarray(ys))
        alone = [after(y, stream.FOUND)[0].periods.tolist() for y in ys]
        assert side_by_side.periods.tolist() == alone == [[12, 0], [31, 0], [50, 0]]


class TestWaves:
    @pytest.mark.parametrize("has_calendar", [True, False])
    def test_those_of_another_time_are_a_rotation(self, x64, has_calendar):
        now, later = jnp.array([0.1, 0.6, 0.3]), jnp.array([0.45, 0.65, 0.301])
        a, b, c = (
            np.asarray(_calendar.waves(phases, has_calendar=has_calendar)).reshape(-1, 2) @ [1, 1j]
            for phases in (now, later, later - now)
        )
        np.testing.assert_allclose(a * c, b, atol=1e-12)
        assert len(a) == _calendar.count(has_calendar=has_calendar) / 2

    def test_what_is_unknown_is_zero(self):
        known = _calendar.waves(jnp.array([0.21, jnp.nan, jnp.nan]), has_calendar=True)
        assert np.count_nonzero(np.asarray(known)) == 2 * 6
        assert not np.any(_calendar.waves(jnp.full(3, jnp.nan), has_calendar=True))


class TestCalendar:
    @pytest.mark.parametrize(
        "step, seasons",
        [
            (datetime.timedelta(minutes=30), [48, 336]),
            (datetime.timedelta(hours=1), [24, 168]),
            (datetime.timedelta(days=1), [7, 365]),
            (datetime.timedelta(days=7), [0, 52]),
            (datetime.timedelta(seconds=1), [86400, 604800]),
        ],
    )
    def test_it_names_the_seasons_of_a_step(self, step, seasons):
        calendar = Calendar()
        for i in range(9):
            row = calendar.add(stamp_of(datetime.datetime(2026, 3, 2) + i * step))
        assert row[3:] == seasons

    def test_months_and_weekdays_have_seasons_of_their_own(self):
        calendar = Calendar()
        for month in range(1, 10):
            row = calendar.add(stamp_of(datetime.date(2025, month, 1)))
        assert row[3:] == [0, 12]
        calendar, day = Calendar(), datetime.date(2026, 3, 2)
        for i in range(40):
            if (day + datetime.timedelta(i)).weekday() < 5:
                row = calendar.add(stamp_of(day + datetime.timedelta(i)))
        assert row[3:] == [5, 261]

    def test_phases_are_those_of_the_clock_on_the_wall(self):
        zone = datetime.timezone(datetime.timedelta(hours=2))
        calendar, start = Calendar(), datetime.datetime(2025, 1, 6, tzinfo=zone)  # a Monday
        for hour in range(24 * 400):
            row = calendar.add(stamp_of(start + datetime.timedelta(hours=hour)))
        last = start + datetime.timedelta(hours=hour)
        assert row[0] == pytest.approx(last.hour / 24)
        assert row[1] == pytest.approx((last.weekday() + last.hour / 24) / 7)
        assert abs(row[2] - (last.timetuple().tm_yday - 1) / 365.2425) < 3 / 365

    def test_a_cycle_that_has_not_passed_is_unknown(self):
        calendar, start = Calendar(), datetime.datetime(2026, 1, 5)
        rows = [calendar.add(stamp_of(start + datetime.timedelta(hours=h))) for h in range(170)]
        assert all(math.isnan(value) for value in rows[2][:3])  # the step is not known yet
        assert not math.isnan(rows[3][0])
        assert [math.isnan(row[1]) for row in rows[166:]] == [True, True, False, False]
        assert all(math.isnan(row[2]) for row in rows)


class TestLeastSquares:
    def test_anew_it_is_the_ridge_regression_about_the_weights_so_far(self, x64):
        rng = np.random.default_rng(0)
        old = _least_squares.init(2, 3, shared=True)._replace(
            covariance=jnp.asarray(rng.normal(size=(1, 3, 3)) ** 2),
            weights=jnp.asarray(rng.normal(size=(2, 3))),
        )
        x, y = rng.normal(size=3), 0.1 * rng.normal(size=2) + np.asarray(old.weights).sum(axis=1)
        x = np.ones(3) + 0 * x
        new = _least_squares.fit(old, jnp.asarray(x[None]), jnp.asarray(y), prior=0.5, anew=jnp.array(True))
        information = 0.999 * np.eye(3) / 0.5 + np.outer(x, x)
        np.testing.assert_allclose(np.linalg.inv(new.covariance[0]), information, rtol=1e-8)
        error = y - np.asarray(old.weights) @ x
        wanted = np.asarray(old.weights) + error[:, None] * np.linalg.solve(information, x)
        np.testing.assert_allclose(new.weights, wanted, rtol=1e-8)

    def test_an_abrupt_change_makes_the_past_count_less(self, x64):
        rng = np.random.default_rng(0)
        rows = jnp.asarray(rng.normal(size=(900, 4)))
        rows = rows.at[:, 3].set(0.1 * rows[:, 3])
        before, after = jnp.array([1.0, 0.5, 0.0]), jnp.array([-1.0, 0.5, 0.3])

        def step(known, row):
            number, x = row
            y = x[:3] @ jnp.where(number < 600, before, after) + x[3]
            new = _least_squares.fit(known, x[None, :3], y[None])
            return new, (jnp.trace(new.covariance[0]), new.weights[0])

        start = _least_squares.init(1, 3, shared=True)
        _, (sizes, weights) = jax.lax.scan(step, start, (jnp.arange(900), rows))
        jumps = np.flatnonzero(sizes[601:] > 3 * sizes[600:-1])
        assert 1 <= len(jumps) <= 3
        assert jumps[0] < 12
        assert jumps[-1] < 40
        np.testing.assert_allclose(weights[599], before, atol=0.02)
        # With a memory of 1,000 samples 0.45 of the old weights would be left.
        np.testing.assert_allclose(weights[680], after, atol=0.4)
        np.testing.assert_allclose(weights[899], after, atol=0.1)

    def test_one_outlier_is_no_change(self, x64):
        rng = np.random.default_rng(0)
        rows = jnp.asarray(rng.normal(size=(400, 3)))

        def step(known, row):
            number, x = row
            y = jnp.where(number == 300, 1e6, x[0] + 0.1 * x[2])
            new = _least_squares.fit(known, x[None, :2], y[None])
            return new, jnp.trace(new.covariance[0])

        start = _least_squares.init(1, 2, shared=True)
        _, sizes = jax.lax.scan(step, start, (jnp.arange(400), rows))
        assert float(jnp.max(sizes[1:] / sizes[:-1])) < 1.1


def hourly(rows, seed=0):
    """Lines of a table with a day, a week and noise."""
    t, rng = np.arange(rows), np.random.default_rng(seed)
    week = np.where(t // 24 % 7 < 5, 1.0, 0.3)
    y = 10 + 5 * week * np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=rows)
    start = datetime.datetime(2026, 1, 5)
    stamps = [(start + datetime.timedelta(hours=int(i))).isoformat(" ") for i in t]
    return ["t,y\n", *(f"{stamp},{value:.4f}\n" for stamp, value in zip(stamps, y, strict=True))]


def error_of(forecasts, horizon=6):
    rows = list(forecasts)
    y = np.array([row.actual for row in rows])
    said = np.array([row.forecast[horizon - 1] for row in rows])
    return abs(said[800:-horizon] - y[800 + horizon :]).mean()


def test_defaults_see_the_week_that_the_stamps_carry():
    lines = hourly(1500)
    by_default = forecast_file(lines, target="y", time="t", horizon=6, hidden=4)
    error = error_of(by_default)
    assert by_default.seasons() == [24, 168]
    assert error < 0.3  # the noise alone makes 0.24
    found = forecast_file(lines, target="y", time="t", horizon=6, hidden=4, calendar="off")
    assert error < error_of(found) < 0.45
    assert error_of(forecast_file(lines, target="y", time="t", horizon=6, hidden=4, period=0)) > 2 * error


def test_lines_one_by_one_are_forecast_as_a_file_is():
    lines = hourly(300)
    whole = list(forecast_file(lines, target="y", time="t", horizon=2, hidden=4))
    live = list(forecast_file(iter(lines), target="y", time="t", horizon=2, hidden=4))
    for a, b in zip(whole, live, strict=True):
        np.testing.assert_allclose(a.forecast, b.forecast, rtol=1e-3, atol=1e-3)


class TestRiver:
    def test_a_date_is_the_time_of_a_value_in_every_usual_type(self):
        start, said = datetime.datetime(2026, 1, 5), []
        for kind in (lambda date: date, np.datetime64, pd.Timestamp):
            model = RecurrentForecaster(horizon=2, hidden=4)
            for i in range(40):
                model.learn_one(math.sin(i / 4), {"when": kind(start + datetime.timedelta(hours=i))})
            assert model.seasons == [24]
            said.append(model.forecast(2))
        assert said[0] == said[1] == said[2]

    def test_a_table_may_begin_without_a_date(self):
        times = [pd.NaT, *(datetime.datetime(2026, 1, 5, hour) for hour in range(20))]
        model = RecurrentForecaster(hidden=4)
        model.learn_many(np.arange(21.0), pd.DataFrame({"time": times}))
        one = RecurrentForecaster(hidden=4)
        for i, time in enumerate(times):
            one.learn_one(float(i), {"time": time})
        np.testing.assert_allclose(model.forecast(1), one.forecast(1), rtol=1e-3)

    def test_a_saved_model_goes_on_with_its_calendar(self, tmp_path):
        start = datetime.datetime(2026, 1, 5)
        model = RecurrentForecaster(hidden=4)
        for i in range(40):
            model.learn_one(math.sin(i / 4), {"when": start + datetime.timedelta(hours=i)})
        model.save(tmp_path)
        again = RecurrentForecaster.load(tmp_path)
        for each in (model, again):
            each.learn_one(0.5, {"when": start + datetime.timedelta(hours=40)})
        assert model.forecast(1) == again.forecast(1)
        assert model.forecast_interval(1) == again.forecast_interval(1)
