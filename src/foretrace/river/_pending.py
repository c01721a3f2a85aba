"""Predictions whose labels have not come yet."""

import collections
from typing import Any

import jax
import numpy as np


class PendingPredictions:
    """Predictions in their order, each with the context that learns from its label.

    Without delay nothing is stored: a prediction changes nothing, however often it is asked for.
    """

    def __init__(self, delay: int):
        self._pending: collections.deque[tuple[dict, Any]] = collections.deque(
            maxlen=delay + 1 if delay else 0
        )

    def latest_hidden(self) -> Any:
        """The hidden state of the newest prediction, None if there is none."""
        return self._pending[-1][1].hidden if self._pending else None

    def find(self, x: dict) -> Any:
        """The newest prediction if its features are `x`, else None."""
        return self._pending[-1][1] if self._pending and self._pending[-1][0] == x else None

    def append(self, x: dict, prediction: Any) -> None:
        """Stores a prediction until its label comes."""
        if self._pending.maxlen:
            # Copies: the user may change `x`, and the state that `prediction` may be a view of is donated.
            self._pending.append((dict(x), jax.tree.map(np.array, prediction)))

    def pop(self, x: dict) -> Any:
        """Removes and returns the oldest prediction for `x`; those before it, without labels, go too."""
        for index, (features, prediction) in enumerate(self._pending):
            if features == x:
                for _ in range(index + 1):
                    self._pending.popleft()
                return prediction
        return None
