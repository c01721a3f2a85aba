"""Which learners fit a cell, and the table of all of them: from structure and specs alone."""

from typing import NamedTuple

from foretrace._checks import UserError, check_number, check_positive_int
from foretrace._format import columns
from foretrace._types import Cell
from foretrace.learners._catalogue._costs import Cost, analyse
from foretrace.learners._catalogue._names import SPECS, Choice
from foretrace.learners._catalogue._spec import Spec

# The age is recommended with blocks of so many steps, and from this rank on.
_AGED_BLOCK, _AGED_RANK = 16, 4

_HEADING = ("learner", "influence matrix", "exact", "unbiased")
_HEADING += ("memory", "time per step", "asks for", "source")


class Candidate(NamedTuple):
    """One learner on one cell.

    Attributes:
        choice: the learner with its sizes; `str()` of it is a name that `foretrace train --learner` takes.
        cost: bytes and operations per step; None where the cell is not one for it.
        fits: whether it may be used within the limits.
        reason: why not, or nothing.
    """

    choice: Choice
    cost: Cost | None
    fits: bool
    reason: str


class Recommendation(NamedTuple):
    """Learners in the order in which to try them; `str()` prints them as a table.

    Attributes:
        candidates: those that fit first: exact ones, unbiased ones from little noise to much, the others.
    """

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> str:
        """The name of the first that fits.

        Raises:
            ValueError: none does.
        """
        if not self.candidates or not self.candidates[0].fits:
            least = min(candidate.cost.bytes for candidate in self.candidates if candidate.cost)
            raise UserError(
                f"memory must be enough for one learner; got none that fits; give at least {least} bytes."
            )
        return str(self.candidates[0].choice)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("learner", "exact", "unbiased", "kB", "kFLOP per step", "why not")]
        for choice, cost, _, reason in self.candidates:
            costs = ("", "") if cost is None else (f"{n / 1e3:,.1f}" for n in cost)
            spec = choice.spec
            rows.append((str(choice), _yes(spec.exact), _yes(spec.unbiased), *costs, reason))
        return "\n".join(columns(rows, right=(3, 4)))


def recommend(
    cell: Cell, *, memory: int | None = None, unbiased: bool = False, lanes: int = 1
) -> Recommendation:
    """Says which learners fit a cell, with bytes and operations per step for each, without running it.

    Args:
        cell: the cell.
        memory: bytes that a learner's state may take, all lanes; None for any number.
        unbiased: whether only gradients that are right in the mean will do.
        lanes: number of streams.

    Returns:
        A `Recommendation`.

    Raises:
        ValueError: `memory` is below 1.

    Example:
        >>> import foretrace as ft
        >>> ft.recommend(ft.cells.elstm(hidden=64, inputs=8)).best
        'rtrl'
        >>> ft.recommend(ft.cells.gru(hidden=64, inputs=8), memory=1_000_000, unbiased=True).best
        'ok:16'
    """
    if memory is not None:
        check_number("memory", memory, "> 0", "give bytes, or leave it out for any number of them")
    check_positive_int("lanes", lanes, "1 is a single stream")
    explanation, candidates = analyse(cell), []
    for spec in SPECS.values():
        refusal = spec.requires.refusal(explanation.structure)
        size = explanation.structure.state_size
        numbers = spec.number.fitting(size) if spec.number else (1,)
        # Of one or two products, an age leaves more noise than others have.
        aged = [Choice(spec, n, _AGED_BLOCK, age=1) for n in numbers if spec.takes_age and n >= _AGED_RANK]
        for choice in (*aged, *(Choice(spec, number) for number in numbers)):
            if refusal is not None:
                reason = f"needs {refusal.needs}; got {refusal.got}"
                candidates.append(Candidate(choice, None, False, reason))
                continue
            cost, reason = explanation.cost(choice, lanes=lanes), ""
            if memory is not None and cost.bytes > memory:
                reason = "too large"
            elif unbiased and not spec.unbiased:
                reason = "biased"
            candidates.append(Candidate(choice, cost, not reason, reason))
    # Stable: otherwise in the order of the specs.
    candidates.sort(key=lambda c: (not c.fits, not c.choice.spec.exact, not c.choice.age))
    return Recommendation(tuple(candidates))


def table() -> list[tuple[str, ...]]:
    """All learners with their claims, a heading first."""
    return [_HEADING, *(_claims(spec) for spec in SPECS.values())]


def _claims(spec: Spec) -> tuple[str, ...]:
    claims = _yes(spec.exact), _yes(spec.unbiased), spec.memory, spec.time
    return (spec.call, spec.influence, *claims, spec.requires.text, spec.source)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
