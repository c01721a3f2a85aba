"""Classification, sample by sample."""

from typing import Any

import numpy as np
from river import base

from foretrace import stream
from foretrace.river._base import Recurrent, check, check_delay, check_weights
from foretrace.river._features import is_missing, to_plain
from foretrace.river._regressor import table


class RecurrentClassifier(Recurrent, base.MiniBatchClassifier):
    """A recurrent network that learns a class at every sample, from its whole past.

    Nothing needs tuning or scaling. Classes may appear at any time. Besides the features the network sees
    the class before.

    Parameters
    ----------
    cell
        Kind of the recurrent network, see `RecurrentRegressor`.
    hidden
        Number of its units.
    learning_rate
        Learning rate of Adam.
    delay
        How many samples a label may come late, see `RecurrentRegressor`.
    seed
        Seed of the initial weights.

    Examples
    --------
    >>> from river import datasets, evaluate, metrics
    >>> from foretrace.river import RecurrentClassifier
    >>> evaluate.progressive_val_score(
    ...     datasets.Phishing().take(300), RecurrentClassifier(), metrics.Accuracy()
    ... ).get() > 0.7
    True

    """

    def __init__(
        self,
        cell: str = "elstm",
        hidden: int = 32,
        learning_rate: float = 0.01,
        delay: int = 0,
        seed: int = 0,
    ):
        check(cell, hidden, learning_rate, seed)
        check_delay(delay)
        self.cell, self.hidden, self.learning_rate = cell, hidden, learning_rate
        self.delay, self.seed = delay, seed
        self._begin(delay)
        self._classes: list = []

    @property
    def _multiclass(self) -> bool:
        return True

    def _config_now(self) -> stream.ClassConfig:
        classes = 1 << max(1, (len(self._classes) - 1).bit_length())
        return stream.ClassConfig(
            self.cell, self.hidden, self._features.capacity, classes, self.learning_rate
        )

    _functions = staticmethod(stream.classification)

    def learn_one(self, x: dict, y: Any, w: float | int = 1.0) -> None:
        """Learns that features `x` had class `y`, with weight `w`, and advances the hidden state.

        A missing class (None, NaN, `pandas.NA`) is one that never comes: only the hidden state advances.
        """
        self._features.register(x)
        index = self._register([y])[0]
        self._ensure_state()
        row = self._features.vector(x), index, check_weights(w, 1)[0]
        prediction = self._pending.pop(x)
        if prediction is None:
            self._state, _ = self._compiled.learn(self._state, *row)
        else:
            self._state, _ = self._compiled.learn_late(self._state, *row, prediction.last)

    def predict_proba_one(self, x: dict, **kwargs: Any) -> dict[Any, float]:
        """The probability of every class so far; empty before the first."""
        if not self._classes:
            return {}
        return dict(zip(self._classes, self._probabilities(self._predict(x)).tolist(), strict=True))

    def learn_many(self, X: Any, y: Any, w: Any = 1.0) -> None:
        """Learns the rows of a data frame in order, exactly as `learn_one` would, in one go.

        The weight `w` is one number, or one for each row.
        """
        columns, labels = table(X), list(y)
        if not labels:
            return
        self._features.register(columns)
        indices = self._register(labels)
        self._ensure_state()
        rows = self._features.table(columns, len(labels)), indices, check_weights(w, len(labels))
        self._state, _ = stream.run_rows(self._compiled, self._state, *rows)

    def predict_proba_many(self, X: Any) -> Any:
        """The probabilities of every row, each as if it came next; a pandas data frame."""
        import pandas as pd

        probabilities = np.zeros((len(X), 0))
        if self._classes and len(X):
            rows = self._features.table(table(X), len(X))
            probabilities = self._probabilities(self._compiled.predict_many(self._state, rows))
        return pd.DataFrame(probabilities, columns=self._classes, index=getattr(X, "index", None))

    def predict_many(self, X: Any) -> Any:
        """The most probable class of every row, each as if it came next; a pandas series."""
        import pandas as pd

        if not self._classes:
            return pd.Series([None] * len(X), index=getattr(X, "index", None))
        return self.predict_proba_many(X).idxmax(axis="columns")

    def _predict(self, x: dict) -> Any:
        """The logits of all classes that there is room for."""
        if self.delay:
            return self._predict_pending(x).logits
        return self._compiled.predict(self._state, self._features.vector(x))

    def _register(self, labels: list) -> np.ndarray:
        """The indices of classes, the next ones for new classes; -1 for a missing one."""
        labels = [None if is_missing(label) else to_plain(label) for label in labels]
        for label in labels:
            if label is not None and label not in self._classes:
                self._classes.append(label)
        return np.array([-1 if label is None else self._classes.index(label) for label in labels])

    def _probabilities(self, logits: Any) -> np.ndarray:
        """Of the classes so far, (.., classes); in double precision, so that they sum to 1."""
        known = np.asarray(logits, float)[..., : len(self._classes)]
        raw = np.exp(known - known.max(axis=-1, keepdims=True))
        return raw / raw.sum(axis=-1, keepdims=True)

    def _beside(self) -> dict[str, Any]:
        return super()._beside() | {"classes": list(self._classes)}

    def _restore(self, beside: dict[str, Any]) -> None:
        super()._restore(beside)
        self._classes = list(beside["classes"])
