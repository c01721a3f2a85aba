"""Regression, sample by sample."""

import math
from typing import Any

import numpy as np
from river import base

from foretrace import stream
from foretrace.river._base import Recurrent, check, check_delay, check_target, check_weights, config_of
from foretrace.river._features import to_float


class RecurrentRegressor(Recurrent, base.MiniBatchRegressor):
    """A recurrent network that learns at every sample, from its whole past.

    Nothing needs tuning or scaling: inputs and targets are standardised as they come. The network is one of
    several experts, whose weights `experts` shows; persistence, which repeats the last target, is another.

    Parameters
    ----------
    cell
        Kind of the recurrent network: elstm, rtu or diagonal, trained by exact RTRL; gru, lstm, highway or
        rnn, trained by OK with 8 Kronecker products.
    hidden
        Number of its units.
    learning_rate
        Learning rate of Adam.
    lags
        How many of the last changes of the target the least-squares expert sees beside the network's state.
    target
        What the network predicts: the "change" since the last target, its "level", or "auto" for both.
    period
        Samples in a season; 0 for none.
    delay
        How many samples a label may come late. Then every prediction depends on the features of the
        predictions before it, with or without a label; two in a row for the same features count once.
    coverage
        How often the intervals shall hold the target.
    seed
        Seed of the initial weights.

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> from foretrace.river import RecurrentRegressor
    >>> evaluate.progressive_val_score(
    ...     datasets.TrumpApproval().take(100), RecurrentRegressor(), metrics.MAE()
    ... ).get() < 1.0
    True

    """

    def __init__(
        self,
        cell: str = "elstm",
        hidden: int = 32,
        learning_rate: float = 0.003,
        lags: int = 24,
        target: str = "auto",
        period: int = 0,
        delay: int = 0,
        coverage: float = 0.9,
        seed: int = 0,
    ):
        check(cell, hidden, learning_rate, seed)
        check_target(lags, target, period, coverage)
        check_delay(delay)
        self.cell, self.hidden, self.learning_rate, self.lags = cell, hidden, learning_rate, lags
        self.target, self.period, self.delay, self.coverage = target, period, delay, coverage
        self.seed = seed
        self._begin(delay)

    def _config_now(self) -> stream.Config:
        return config_of(self, horizon=1)

    _functions = staticmethod(stream.regression)

    def learn_one(self, x: dict, y: Any, w: float | int = 1.0) -> None:
        """Learns that features `x` had target `y`, with weight `w`, and advances the hidden state.

        A missing target (None, NaN, `pandas.NA`) is one that never comes: only the hidden state advances.
        """
        y = to_float("y", y)
        self._features.register(x)
        self._ensure_state()
        row = self._features.vector(x), stream.pairs(y), check_weights(w, 1)[0]
        prediction = self._pending.pop(x)
        if prediction is None:
            self._state, _ = self._compiled.learn(self._state, *row)
        else:
            self._state, _ = self._compiled.learn_late(self._state, *row, prediction._replace(hidden=None))

    def predict_one(self, x: dict) -> float:
        """The target that features `x` should have, 0 before anything was learned."""
        return 0.0 if self._state is None else self._predict(x)[0]

    def predict_interval_one(self, x: dict) -> tuple[float, float]:
        """Lower and upper bound between which the target should lie as often as `coverage` says."""
        if self._state is None:
            return -math.inf, math.inf
        _, lower, upper = self._predict(x)
        return lower, upper

    def score_one(self, x: dict, y: float | int) -> float:
        """How unusual `y` is for features `x`, from 0 to 1: the share of past errors that were smaller."""
        if self._state is None:
            return 0.0
        past = np.asarray(self._tree.interval.past)
        past = past[np.isfinite(past)]
        error = abs(to_float("y", y) - self.predict_one(x))
        return float(np.sum(past < error) + 0.5 * np.sum(past == error)) / (len(past) + 1)

    def learn_many(self, X: Any, y: Any, w: Any = 1.0) -> None:
        """Learns the rows of a data frame in order, exactly as `learn_one` would, in one go.

        The weight `w` is one number, or one for each row.
        """
        columns, targets = table(X), [to_float("y", value) for value in np.asarray(y).tolist()]
        if not targets:
            return
        self._features.register(columns)
        self._ensure_state()
        weights = check_weights(w, len(targets))
        rows = self._features.table(columns, len(targets)), stream.pairs(targets), weights
        self._state, _ = stream.run_rows(self._compiled, self._state, *rows)

    def predict_many(self, X: Any) -> Any:
        """The target of every row, each as if it came next; a series like the data frame."""
        columns = table(X)
        rows = len(X)
        values = np.zeros(rows)
        if self._state is not None and rows:
            table_ = self._features.table(columns, rows)
            values = stream.from_pairs(self._compiled.predict_many(self._state, table_))[:, 0]
        index = getattr(X, "index", None)
        if index is None:
            return values
        import pandas as pd

        return pd.Series(values, index=index)

    @property
    def experts(self) -> dict[str, float]:
        """The weight of each expert at the moment; they sum to 1."""
        return (
            {} if self._state is None else stream.weights_of(stream.expert_names(self._config), self._tree)
        )

    def _predict(self, x: dict) -> tuple[float, float, float]:
        """The target that is expected, and the bounds around it."""
        if not self.delay:
            return tuple(
                stream.from_pairs(self._compiled.predict(self._state, self._features.vector(x))).tolist()
            )
        prediction = self._predict_pending(x)
        value = float(prediction.value) + sum(float(part[0]) for part in prediction.origin)
        return value, *(value + np.asarray(prediction.offsets, float)).tolist()


def table(X: Any) -> dict[Any, list]:
    """The columns of a data frame, with dates as `datetime`."""
    columns = {name: np.asarray(X[name]) for name in X.columns}
    # NumPy would make a list of integers of dates that count nanoseconds.
    dates = {
        name: column.astype("datetime64[us]")
        for name, column in columns.items()
        if column.dtype.kind == "M"
    }
    return {name: column.tolist() for name, column in (columns | dates).items()}
