"""Questions whose labels have not come yet."""

import collections
from typing import Any

import jax
import numpy as np


class Questions:
    """The answers that were given, in order, with what it takes to learn from their labels.

    Without delay nothing is kept: a question is then only a question, and leaves no trace.
    """

    def __init__(self, delay: int):
        self._open: collections.deque[tuple[dict, Any]] = collections.deque(
            maxlen=delay + 1 if delay else 0
        )

    def before(self) -> Any:
        """The hidden state of the newest question, None if there is none."""
        return self._open[-1][1].hidden if self._open else None

    def again(self, x: dict) -> Any:
        """The answer to the newest question if it is this one, else None."""
        return self._open[-1][1] if self._open and self._open[-1][0] == x else None

    def keep(self, x: dict, said: Any) -> None:
        """Keeps an answer until its label comes."""
        if self._open.maxlen:
            # Copied: what was handed in may change, and the state that this may be a view of is given away.
            self._open.append((dict(x), jax.tree.map(np.array, said)))

    def take(self, x: dict) -> Any:
        """The oldest answer to this question, or None; questions before it will have no label any more."""
        for index, (question, said) in enumerate(self._open):
            if question == x:
                for _ in range(index + 1):
                    self._open.popleft()
                return said
        return None
