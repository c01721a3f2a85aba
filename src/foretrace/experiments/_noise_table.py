"""The noise of learners beside their price, as a table, a picture and a page."""

from pathlib import Path
from typing import NamedTuple

from foretrace._format import columns
from foretrace.plotting import Chart, Entry, Line, Page, Table, charts_page, draw_charts

_HEADING = ("learner", "relative squared error", "bias", "cosine", "us/step", "MB")
_TITLE = "What a gradient is worth, and what it costs"


class Noise(NamedTuple):
    """What one learner's gradients are worth, and what they cost.

    Attributes:
        learner: its name.
        error: E|g - exact|^2 / |exact|^2, both summed over the steps of the streams; the relative variance
            of an unbiased learner.
        spread: standard error of `error` over the draws.
        bias: sum of (g - exact) . exact over that of |exact|^2: 0 where a gradient is right in the mean,
            -1 where it is nothing.
        bias_error: its standard error over the draws.
        cosine: of g and exact, mean over draws and over the steps that have a gradient.
        microseconds: of a step forward with gradient and update, all lanes.
        state_bytes: of the learner's state, all lanes.
    """

    learner: str
    error: float
    spread: float
    bias: float
    bias_error: float
    cosine: float
    microseconds: float
    state_bytes: int


class NoiseTable(NamedTuple):
    """One row per learner; `str()` prints them.

    Attributes:
        rows: in the order in which they were asked for.
        reference: what `exact` was, in words.
        reference_error: relative squared error of the reference itself; 0 where it is exact.
    """

    rows: tuple[Noise, ...]
    reference: str
    reference_error: float

    def __str__(self) -> str:
        rows = [_HEADING, *(tuple(entry.text for entry in row) for row in self._entries())]
        return "\n".join([*columns(rows, right=range(1, 6), rule=True), self._beside(), self._choice()])

    def _entries(self) -> list[list[Entry]]:
        """The texts of each row, and the numbers behind them."""
        return [
            [
                Entry(row.learner, place),
                Entry(f"{row.error:.2g} ± {row.spread:.1g}", row.error),
                Entry(f"{row.bias:+.1e} ± {row.bias_error:.0e}", abs(row.bias)),
                Entry(f"{row.cosine:.4f}", row.cosine),
                Entry(f"{row.microseconds:,.0f}", row.microseconds),
                Entry(f"{row.state_bytes / 1e6:,.2f}", row.state_bytes),
            ]
            for place, row in enumerate(self.rows)
        ]

    def _beside(self) -> str:
        """What the gradients were compared with."""
        own = (
            f", whose own relative squared error is {self.reference_error:.1g}"
            if self.reference_error
            else ""
        )
        return f"beside {self.reference}{own}"

    def cheapest(self, error: float = 0.01) -> Noise | None:
        """The learner of the fewest microseconds among those with no more than this error, if there is one.

        At a hundredth, the cosine of an unbiased gradient with the exact one is some .995.
        """
        quiet = [row for row in self.rows if row.error <= error]
        return min(quiet, key=lambda row: row.microseconds, default=None)

    def _choice(self) -> str:
        row, least = self.cheapest(), min(self.rows, key=lambda row: row.error)
        if row is None:
            return f"none with an error of a hundredth or less; the least is that of {least.learner}"
        return f"cheapest with an error of a hundredth or less: {row.learner}"

    def page(self, title: str = _TITLE) -> Page:
        """The table and the picture as a page for a browser."""
        table = Table("Gradients", f"Measured {self._beside()}.", _HEADING, self._entries())
        return charts_page([self._chart()], title, tables=[table])

    def draw(self, path: Path, title: str = _TITLE) -> None:
        """Draws the error against time per step, one point per learner.

        Args:
            path: PNG file to write.
            title: of the picture.
        """
        draw_charts([self._chart()], title, path)

    def _chart(self) -> Chart:
        lines = [Line(row.learner, [row.microseconds], [[row.error]]) for row in self.rows]
        floor = min((row.error for row in self.rows if row.error > 0), default=1) / 10
        return Chart("Relative squared error", "us per step", lines, floor=floor, points=True)
