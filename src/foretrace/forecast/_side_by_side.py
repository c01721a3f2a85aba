"""Models of many series in one process: a few calls learn the rows of all of them."""

import concurrent.futures
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from foretrace import stream
from foretrace._checks import UserError

TOGETHER = 32  # series of one call
_STEPS = 64  # rows of each of them in one call, at most
_SHARE = 0.8  # of the memory that the states may take


class SideBySide:
    """Models of one configuration, each with a state of its own; each learns as it would alone.

    Attributes:
        states: of 32 series each, the last ones perhaps of none.
    """

    def __init__(self, config: stream.Config, seed: int):
        self._config, self._compiled = config, stream.forecasting(config)
        self._first = self._compiled.init(jax.random.key(seed))
        self.states: list[Any] = []

    @property
    def bytes_each(self) -> int:
        """Memory of the state of one series."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._first))

    def like(self, series: int) -> list[Any]:
        """Shapes of the states of so many series."""
        return [jax.eval_shape(self._new_states)] * -(-series // TOGETHER)

    def make_room(self, series: int) -> None:
        """Adds states, for so many series in all.

        Raises:
            UserError: there is not enough memory.
        """
        while len(self.states) * TOGETHER < series:
            needed, memory = (len(self.states) + 1) * TOGETHER * self.bytes_each, _memory()
            if memory is not None and needed > _SHARE * memory:
                raise UserError(
                    f"series must be few enough for a memory of {memory / 1e9:,.1f} GB; got {series:,} of "
                    f"{self.bytes_each / 1e3:,.0f} kB each; split the table or give a smaller hidden."
                )
            self.states.append(self._new_states())

    def put(self, place: int, states: Sequence[Any], other: int) -> None:
        """Gives the series at one place the state that it has among others of the same kind.

        Args:
            place: its number here; there is room.
            states: those of other models, as `SideBySide.states`.
            other: its number there.
        """
        (part, at), (there, spot) = divmod(place, TOGETHER), divmod(other, TOGETHER)
        self.states[part] = jax.tree.map(
            lambda own, new: own.at[at].set(new[spot]), self.states[part], states[there]
        )

    def learn(self, places: Sequence[int], columns: Sequence[np.ndarray]) -> list[stream.ForecastResult]:
        """Learns rows, those of each series in their order.

        Args:
            places: the number of the series of each row.
            columns: of the rows, (rows, ..) each.

        Returns:
            The result of each row.
        """
        queues: dict[int, dict[int, list[int]]] = {}
        for number, place in enumerate(places):
            queues.setdefault(place // TOGETHER, {}).setdefault(place % TOGETHER, []).append(number)
        packed: list[Any] = [None] * len(places)

        def learn(part: int) -> None:
            queue = queues[part]
            for start in range(0, max(map(len, queue.values())), _STEPS):
                numbers = {place: rows[start : start + _STEPS] for place, rows in queue.items()}
                outputs = self._call(part, numbers, columns)
                for place, wanted in numbers.items():
                    for step, number in enumerate(wanted):
                        packed[number] = outputs[step, place]

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(learn, queues))
        return [stream.ForecastResult.unpack(output) for output in packed]

    def weights(self, series: int) -> dict[str, float]:
        """The mean weight of each expert over the first so many series."""
        names = stream.forecast_experts(self._config)
        sums = dict.fromkeys(names, 0.0)
        for place in range(series):
            part, at = divmod(place, TOGETHER)
            state = jax.tree.map(lambda leaf, at=at: leaf[at], self.states[part])
            for name, weight in stream.weights_of(names, self._compiled.unpack(state).state).items():
                sums[name] += weight / series
        return sums

    def _call(self, part: int, numbers: dict[int, list[int]], columns: Sequence[np.ndarray]) -> np.ndarray:
        """Learns rows, by their numbers at each place of a part, (steps, places, ..)."""
        counts = np.zeros(TOGETHER, int)
        padded = [np.zeros((_STEPS, TOGETHER, *column.shape[1:]), column.dtype) for column in columns]
        for place, wanted in numbers.items():
            counts[place] = len(wanted)
            for column, into in zip(columns, padded, strict=True):
                into[: len(wanted), place] = column[wanted]
        # What a series that does not go on has drawn is dropped: JAX's checker of keys does not know that.
        with jax.debug_key_reuse(False):
            self.states[part], outputs = self._compiled.learn_series(self.states[part], counts, *padded)
        return np.asarray(outputs)

    def _new_states(self) -> Any:
        """States of 32 series, each that of a series alone."""
        return jax.tree.map(
            lambda leaf: jax.numpy.broadcast_to(leaf, (TOGETHER, *leaf.shape)).copy(), self._first
        )


def _memory() -> int | None:
    """Bytes of the machine, where the system says so."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
