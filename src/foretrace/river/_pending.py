"""Predictions whose labels have not come yet."""

import collections
from typing import Any

import jax
import numpy as np

from foretrace._checks import UserError
from foretrace.river._features import is_missing, to_plain


class PendingPredictions:
    """Predictions in their order, each with the context that learns from its label.

    Without delay nothing is stored: a prediction changes nothing, however often it is asked for.
    """

    def __init__(self, delay: int):
        self._pending: collections.deque[tuple[dict, Any]] = collections.deque(
            maxlen=delay + 1 if delay else 0
        )

    def __len__(self) -> int:
        return len(self._pending)

    def latest_hidden(self) -> Any:
        """The hidden state of the newest prediction, None if there is none."""
        return self._pending[-1][1].hidden if self._pending else None

    def find(self, x: dict) -> Any:
        """The newest prediction if its features are `x`, else None."""
        return self._pending[-1][1] if self._pending and self._pending[-1][0] == _comparable(x) else None

    def append(self, x: dict, prediction: Any) -> None:
        """Stores a prediction until its label comes."""
        if self._pending.maxlen:
            # Copies: the state that `prediction` may be a view of is donated.
            self._pending.append((_comparable(x), jax.tree.map(np.array, prediction)))

    def pop(self, x: dict) -> Any:
        """Removes and returns the oldest prediction for `x`; those before it, without labels, go too."""
        x = _comparable(x)
        for index, (features, prediction) in enumerate(self._pending):
            if features == x:
                for _ in range(index + 1):
                    self._pending.popleft()
                return prediction
        return None

    def enlarge(self, like: Any) -> None:
        """Pads all predictions with zeros to the shapes of `like`, after classes were added."""
        for index, (features, prediction) in enumerate(self._pending):
            self._pending[index] = features, jax.tree.map(_padded, prediction, like)

    def arrays(self) -> Any:
        """The predictions as one pytree, with a leading axis; an empty tuple if there is none."""
        predictions = [prediction for _, prediction in self._pending]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *predictions) if predictions else ()

    def features(self) -> list:
        """The features of each prediction as [name, value] pairs, for JSON.

        Raises:
            UserError: if JSON has no such name or value.
        """
        for x, _ in self._pending:
            for name, value in x.items():
                if not isinstance(value, str | int | float | bool | None):
                    raise UserError(
                        f"{name!r} must be a number to be saved while its label is pending; got {value!r}."
                    )
        return [[list(item) for item in x.items()] for x, _ in self._pending]

    def restore(self, features: list, arrays: Any) -> None:
        """Inverse of `features` and `arrays`."""
        self._pending.clear()
        for index, pairs in enumerate(features):
            prediction = jax.tree.map(lambda leaf, index=index: np.array(leaf[index]), arrays)
            self._pending.append((dict(pairs), prediction))


def _comparable(x: dict) -> dict:
    """Features as plain values that are equal when they are the same, NaN included."""
    return {to_plain(name): None if is_missing(value) else to_plain(value) for name, value in x.items()}


def _padded(leaf: np.ndarray, like: Any) -> np.ndarray:
    if not leaf.ndim:
        return leaf
    return np.pad(leaf, [(0, large - small) for small, large in zip(leaf.shape, like.shape, strict=True)])
