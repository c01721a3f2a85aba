"""Forecasting, sample by sample."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from river import time_series

from foretrace import stream
from foretrace._checks import UserError
from foretrace.forecast import Calendar, stamp_of
from foretrace.river._base import Recurrent, check, check_positive_int, check_target, config_of
from foretrace.river._features import is_missing, to_float
from foretrace.river._regressor import table


class RecurrentForecaster(Recurrent, time_series.base.Forecaster):
    """A recurrent network that forecasts a series and learns from every value of it, from its whole past.

    Nothing needs tuning or scaling. A date among the features shows the time of day, the day of the week
    and the day of the year. Every horizon up to `horizon` has readouts of its own, trained directly. The
    network is one of several experts (`experts`), persistence is another.

    Parameters
    ----------
    horizon
        How many values ahead are learned. `forecast` can be asked for fewer; asked for more, it repeats the
        last one. Learning is that many samples late.
    cell
        Kind of the recurrent network, see `RecurrentRegressor`.
    hidden
        Number of its units.
    learning_rate
        Learning rate of Adam.
    lags
        How many of the last changes the least-squares expert sees beside the network's state.
    target
        What the network predicts: the "change" from the last value, the "level", or "auto" for both.
    period
        Values in a season; 0 for none. With "auto" up to two are found, such as a day and a week: those of
        the first date among the features, else distances over which the values change little.
    coverage
        How often the intervals shall hold the value.
    seed
        Seed of the initial weights.

    Examples
    --------
    >>> from river import datasets
    >>> from foretrace.river import RecurrentForecaster
    >>> model = RecurrentForecaster(horizon=3)
    >>> for x, y in datasets.AirlinePassengers():
    ...     model.learn_one(y)
    >>> len(model.forecast(horizon=3))
    3

    """

    def __init__(
        self,
        horizon: int = 1,
        cell: str = "elstm",
        hidden: int = 32,
        learning_rate: float = 0.003,
        lags: int = 24,
        target: str = "auto",
        period: int | str = "auto",
        coverage: float = 0.9,
        seed: int = 0,
    ):
        check(cell, hidden, learning_rate, seed)
        check_target(lags, target, period, coverage, finds_seasons=True)
        check_positive_int("horizon", horizon, "1 is the next value")
        self.horizon, self.cell, self.hidden, self.learning_rate = horizon, cell, hidden, learning_rate
        self.lags, self.target, self.period, self.coverage = lags, target, period, coverage
        self.seed = seed
        self._begin()
        self._forecast = [0.0] * horizon
        self._calendar: Calendar | None = None

    def _config_now(self) -> stream.Config:
        config = config_of(self, horizon=self.horizon)
        period = stream.FOUND if self.period == "auto" else self.period
        return config._replace(period=period, has_calendar=self._calendar is not None)

    _functions = staticmethod(stream.forecasting)

    def learn_one(self, y: Any, x: dict | None = None) -> None:
        """Learns that the series went on with `y`, while the features were `x`.

        A missing value (None, NaN, `pandas.NA`) is unknown: the model's own forecast stands in for it.
        The first date among the features is the time of the value; others are left out.
        """
        y, calendar, x = to_float("y", y), self._calendars([date_of(x)]), timeless(x)
        self._features.register(x)
        self._ensure_state()
        row = self._features.vector(x), stream.pairs(y), *(each[0] for each in calendar)
        self._state, result = self._compiled.learn(self._state, *row)
        self._forecast = stream.ForecastResult.unpack(np.asarray(result)).forecast.tolist()

    def learn_many(self, y: Any, X: Any = None) -> None:
        """Learns many values in order, exactly as `learn_one` would, in one go; `X` is a data frame."""
        values = [to_float("y", value) for value in np.asarray(y).tolist()]
        if not values:
            return
        columns = {} if X is None else table(X)
        dated = {name for name, column in columns.items() if any(map(is_date, column))}
        dates = next((columns[name] for name in columns if name in dated), [None] * len(values))
        calendars = self._calendars(dates)
        columns = {name: column for name, column in columns.items() if name not in dated}
        self._features.register(columns)
        self._ensure_state()
        rows = self._features.table(columns, len(values)), stream.pairs(values), *calendars
        self._state, results = stream.run_rows(self._compiled, self._state, *rows)
        self._forecast = stream.ForecastResult.unpack(results[-1]).forecast.tolist()

    def forecast(self, horizon: int, xs: Sequence[dict] | None = None) -> list[float]:
        """The next values; 0 before anything was learned.

        Parameters
        ----------
        horizon
            How many.
        xs
            The features ahead, one dict for each value; without them the last ones stay as they are.

        """
        check_positive_int("horizon", horizon, "1 is the next value")
        if xs is not None and len(xs) != horizon:
            raise UserError(
                f"xs must have one dict for each of {horizon} values; got {len(xs)}; leave it out if the "
                f"features are unknown."
            )
        values = self._forecast
        if self._state is not None and xs is not None and self._features.capacity:
            rows = [self._features.vector(timeless(x)) for x in itertools.islice(xs, self.horizon)]
            rows += [rows[-1]] * (self.horizon - len(rows))
            values = stream.from_pairs(self._compiled.predict(self._state, np.stack(rows))).tolist()
        return [values[min(h, self.horizon - 1)] for h in range(horizon)]

    def forecast_interval(
        self, horizon: int, xs: Sequence[dict] | None = None
    ) -> list[tuple[float, float]]:
        """Lower and upper bounds between which the next values should lie as often as `coverage` says."""
        values = self.forecast(horizon, xs)
        if self._state is None:
            return [(-math.inf, math.inf)] * horizon
        offsets = np.asarray(offsets_of(self._compiled)(self._state))
        rows = [offsets[min(h, self.horizon - 1)] for h in range(horizon)]
        return [
            (value + float(low), value + float(high))
            for value, (low, high) in zip(values, rows, strict=True)
        ]

    def score_one(self, y: float | int) -> float:
        """How unusual it would be if `y` came next, from 0 to 1: the share of past errors below."""
        if self._state is None:
            return 0.0
        past = np.asarray(self._tree.state.interval.past)
        past = past[np.isfinite(past)]
        error = abs(to_float("y", y) - self._forecast[0])
        return float(np.sum(past < error) + 0.5 * np.sum(past == error)) / (len(past) + 1)

    @property
    def experts(self) -> dict[str, float]:
        """The weight of each expert one step ahead; they sum to 1."""
        names = stream.forecast_experts(self._config) if self._config else []
        return stream.weights_of(names, self._tree.state) if names else {}

    @property
    def seasons(self) -> list[int]:
        """Values in each season that is seen at the moment, the shorter one first."""
        return [] if self._state is None else sorted(n for n in self._tree.seasons.periods.tolist() if n)

    def _beside(self) -> dict[str, Any]:
        calendar = self._calendar and dataclasses.asdict(self._calendar)
        return super()._beside() | {"forecast": self._forecast, "calendar": calendar}

    def _restore(self, beside: dict[str, Any]) -> None:
        super()._restore(beside)
        self._forecast, calendar = beside["forecast"], beside["calendar"]
        self._calendar = calendar and Calendar(**calendar)

    def _calendars(self, dates: Sequence[Any]) -> list[np.ndarray]:
        """The calendars of rows, (rows, 5), as the one entry of a list; none without dates."""
        if self._calendar is None and self._state is None and self.period != 0 and dates[0] is not None:
            self._calendar = Calendar()
        if self._calendar is None:
            return []
        calendars = stream.unknown_calendar(len(dates))
        for row, date in enumerate(dates):
            if not is_missing(date):
                calendars[row] = self._calendar.add(stamp_of(date))
        return [stream.float_array(calendars)]


@functools.cache
def offsets_of(compiled: stream.Compiled) -> Any:
    """The function of a state that reads the intervals alone: a whole state takes many times as long."""
    return jax.jit(lambda state: stream.offsets(compiled.unpack(state).state.interval))


def is_date(value: Any) -> bool:
    """Whether a feature is a date, which is the name of a time and no quantity."""
    return hasattr(value, "isoformat") or isinstance(value, np.datetime64)


def date_of(x: dict | None) -> Any:
    """The first date among the features, None if there is none."""
    date = next((value for value in (x or {}).values() if is_date(value)), None)
    return date.astype("datetime64[us]").item() if isinstance(date, np.datetime64) else date


def timeless(x: dict | None) -> dict:
    """Drops dates."""
    return {name: value for name, value in (x or {}).items() if not is_date(value)}
