"""The weights of the experts over time, in few points however long the stream is."""

import dataclasses
from collections.abc import Callable

_MOST = 400  # points, of which every second one stays when there are more


@dataclasses.dataclass
class WeightHistory:
    """The weights of the experts at times that are about equally far apart; everything in it is JSON.

    Attributes:
        names: of the experts.
        times: of the rows after which the weights were taken.
        weights: for each of them, the weight of every expert in the forecast one row ahead.
        every: least number of rows from one point to the next; it doubles as the stream goes on.
        due: number of the row from which on the next point is taken.
    """

    names: list = dataclasses.field(default_factory=list)
    times: list = dataclasses.field(default_factory=list)
    weights: list = dataclasses.field(default_factory=list)
    every: int = 1
    due: int = 0

    def take(self, rows: int, time: str, experts: Callable[[], dict[str, float]]) -> None:
        """Takes a point after so many rows if one is due; only then are the experts asked."""
        if rows < self.due:
            return
        weights = experts()
        self.names = list(weights)
        self.times.append(time)
        self.weights.append([round(weight, 4) for weight in weights.values()])
        if len(self.times) > _MOST:
            self.times, self.weights, self.every = self.times[::2], self.weights[::2], 2 * self.every
        self.due = rows + self.every
