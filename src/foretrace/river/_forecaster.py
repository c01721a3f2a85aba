"""Forecasting, sample by sample."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from river import time_series

from foretrace import stream
from foretrace._checks import UserError
from foretrace.river._base import Recurrent, check, check_positive_int, check_target, config_of
from foretrace.river._features import to_float
from foretrace.river._regressor import table


class RecurrentForecaster(Recurrent, time_series.base.Forecaster):
    """A recurrent network that forecasts a series and learns from every value of it, from its whole past.

    Nothing needs tuning or scaling. Every horizon up to `horizon` has readouts of its own, trained
    directly. The network is one of several experts (`experts`), persistence is another.

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
        Values in a season; 0 for none. With one, a clock and the value of one season before are seen.
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
        period: int = 0,
        coverage: float = 0.9,
        seed: int = 0,
    ):
        check(cell, hidden, learning_rate, seed)
        check_target(lags, target, period, coverage)
        check_positive_int("horizon", horizon, "1 is the next value")
        self.horizon, self.cell, self.hidden, self.learning_rate = horizon, cell, hidden, learning_rate
        self.lags, self.target, self.period, self.coverage = lags, target, period, coverage
        self.seed = seed
        self._begin()
        self._forecast = [0.0] * horizon

    def _config_now(self) -> stream.Config:
        return config_of(self, horizon=self.horizon)

    _functions = staticmethod(stream.forecasting)

    def learn_one(self, y: Any, x: dict | None = None) -> None:
        """Learns that the series went on with `y`, while the features were `x`.

        A missing value (None, NaN, `pandas.NA`) is unknown: the model's own forecast stands in for it.
        Dates among the features are left out.
        """
        y, x = to_float("y", y), timeless(x)
        self._features.register(x)
        self._ensure_state()
        row = self._features.vector(x), stream.pairs(y)
        self._state, result = self._compiled.learn(self._state, *row)
        self._forecast = stream.ForecastResult.unpack(np.asarray(result)).forecast.tolist()

    def learn_many(self, y: Any, X: Any = None) -> None:
        """Learns many values in order, exactly as `learn_one` would, in one go; `X` is a data frame."""
        values = [to_float("y", value) for value in np.asarray(y).tolist()]
        if not values:
            return
        columns = {} if X is None else table(X)
        self._features.register(columns)
        self._ensure_state()
        rows = self._features.table(columns, len(values))
        self._state, results = stream.run_rows(self._compiled, self._state, rows, stream.pairs(values))
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
        offsets = np.asarray(stream.offsets(self._tree.state.interval))
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
        return {} if self._state is None else stream.weights_of(self._config, self._tree.state)

    def _beside(self) -> dict[str, Any]:
        return super()._beside() | {"forecast": self._forecast}

    def _restore(self, beside: dict[str, Any]) -> None:
        super()._restore(beside)
        self._forecast = beside["forecast"]


def timeless(x: dict | None) -> dict:
    """Drops dates, which are names of a time and no quantity."""
    return {name: value for name, value in (x or {}).items() if not hasattr(value, "isoformat")}
