"""Which learners there are, what each claims, and which of them fit a cell: from structure alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from foretrace import learners
from foretrace._checks import UserError
from foretrace._types import Cell, Learner
from foretrace.learners._costs import Cost, describe
from foretrace.learners._engine._factored import check_factorises
from foretrace.learners._engine._sparse import local_past


class Facts(NamedTuple):
    """What a learner claims, in the words of the table that `table` makes.

    Attributes:
        call: how it is made.
        influence: what stands for the influence matrix.
        exact: whether its gradient is that of the unrolled loss; for fixed parameters, as all that follows.
        unbiased: whether it is so in the mean.
        memory: floats per lane beside those of a window; S size of the state, P number of parameters, F and
            Z lengths of input factor and pre-activation, R rank, K entries of the state that a parameter
            reaches.
        time: operations per step, leading term, dense recurrence, block 1.
        factorises: what it asks of the cell.
        source: who found it.
    """

    call: str
    influence: str
    exact: bool
    unbiased: bool
    memory: str
    time: str
    factorises: str
    source: str


_ANY, _GROUPS, _LOCAL = "any cell", "weights factorise", "units apart but for weights"

LEARNERS = {
    "rtrl": Facts("rtrl(cell)", "all of it", True, True, "S P, or K P", "S^2 P, or K^2 P", _ANY,
                  "Williams & Zipser 1989"),
    "ok": Facts("ok(cell, rank=R)", "R Kronecker products, least variance", False, True, "R (F + S Z)",
                "R S^2 Z", _GROUPS, "Benzing et al. 2019"),
    "kf_rtrl": Facts("kf_rtrl(cell)", "one Kronecker product", False, True, "F + S Z", "S^2 Z", _GROUPS,
                     "Mujika et al. 2018"),
    "ktp": Facts("ktp(cell, rank=R)", "R products of three vectors, one of them shared", False, True,
                 "F + R (S + Z)", "R S Z", _GROUPS, "Benzing et al. 2019"),
    "uoro": Facts("uoro(cell)", "one outer product", False, True, "S + P", "P", _ANY,
                  "Tallec & Ollivier 2018"),
    "sketch": Facts("sketch(cell, rank=R)", "SnAp-1 and R outer products, error bounded", False, False,
                    "K P + R (S + P)", "S^3 + R^2 P", _ANY, "Yi & Wang 2026"),
    "snap": Facts("snap(cell, order=n)", "entries reached in n steps", False, False, "K P", "K^2 P", _ANY,
                  "Menick et al. 2021"),
    "eprop": Facts("eprop(cell)", "each unit's own", False, False, "K P", "K^2 P", _LOCAL,
                   "Bellec et al. 2020"),
    "rflo": Facts("rflo(cell)", "each unit's own leak", False, False, "P", "P", _LOCAL, "Murray 2019"),
    "tbptt": Facts("tbptt(cell, window=T)", "dropped after T steps", False, False, "T steps", "P", _ANY,
                   "Williams & Peng 1990"),
    "immediate": Facts("immediate(cell)", "the present step alone", False, False, "none", "P", _ANY,
                       "a baseline"),
    "frozen": Facts("frozen(cell)", "none: the readout learns alone", False, False, "none", "P", _ANY,
                    "a baseline"),
}  # fmt: skip


# Makes each from a cell, its number (rank, order or window, where it has one) and the steps per block.
MAKE: dict[str, Callable[[Cell, int, int], Learner]] = {
    "ok": lambda cell, n, block: learners.ok(cell, rank=n, block=block),
    "kf_rtrl": lambda cell, n, block: learners.kf_rtrl(cell, block=block),
    "uoro": lambda cell, n, block: learners.uoro(cell, block=block),
    "rtrl": lambda cell, n, block: learners.rtrl(cell, block=block),
    "ktp": lambda cell, n, block: learners.ktp(cell, rank=n, block=block),
    "sketch": lambda cell, n, block: learners.sketch(cell, rank=n, block=block),
    "snap": lambda cell, n, block: learners.snap(cell, order=n, block=block),
    "eprop": lambda cell, n, block: learners.eprop(cell),
    "rflo": lambda cell, n, block: learners.rflo(cell),
    "tbptt": lambda cell, n, block: learners.tbptt(cell, window=n),
    "immediate": lambda cell, n, block: learners.immediate(cell),
    "frozen": lambda cell, n, block: learners.frozen(cell),
}


class Choice(NamedTuple):
    """One learner on one cell.

    Attributes:
        label: its name, with its number if it has one: what `foretrace train --learner` takes.
        cost: bytes and operations per step; None where the cell is not one for it.
        fits: whether it may be used within what was asked for.
        reason: why not, or nothing.
    """

    label: str
    cost: Cost | None
    fits: bool
    reason: str


class Recommendation(NamedTuple):
    """Learners in the order in which to try them; `str()` prints them as a table.

    Attributes:
        choices: those that fit first: exact ones, unbiased ones from little noise to much, the others.
    """

    choices: tuple[Choice, ...]

    @property
    def best(self) -> str:
        """The label of the first that fits.

        Raises:
            ValueError: none does.
        """
        if not self.choices or not self.choices[0].fits:
            raise UserError(
                "memory must be enough for one learner; got none that fits; give at least "
                f"{min(choice.cost.bytes for choice in self.choices if choice.cost)} bytes."
            )
        return self.choices[0].label

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("learner", "exact", "unbiased", "kB", "kFLOP per step", "")]
        for choice in self.choices:
            facts = LEARNERS[choice.label.partition(":")[0]]
            cost = ("", "") if choice.cost is None else _thousands(choice.cost)
            rows.append((choice.label, _yes(facts.exact), _yes(facts.unbiased), *cost, choice.reason))
        return "\n".join(columns(rows, right=(3, 4)))


# In the order in which they are to be tried.
_TRIED = (
    *(("rtrl", {}), ("ok:16", {"rank": 16}), ("ok:8", {"rank": 8}), ("ok:2", {"rank": 2}), ("kf_rtrl", {})),
    *(("ktp:16", {"rank": 16}), ("uoro", {}), ("sketch:8", {"rank": 8}), ("snap:2", {"order": 2})),
    *(("snap:1", {"order": 1}), ("eprop", {}), ("rflo", {}), ("tbptt:25", {"window": 25})),
    *(("immediate", {}), ("frozen", {})),
)


def recommend(
    cell: Cell, *, memory: int | None = None, unbiased: bool = False, lanes: int = 1
) -> Recommendation:
    """Says which learners fit a cell, with bytes and operations per step for each, without running it.

    Args:
        cell: the cell.
        memory: bytes that influence and window may take, all lanes; None for any number.
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
    if memory is not None and memory < 1:
        raise UserError(f"memory must be a number of bytes >= 1; got {memory}; leave it out for any.")
    explanation = describe(cell)
    choices = []
    for label, sizes in _TRIED:
        name = label.partition(":")[0]
        if problem := _refused(explanation.structure, name):
            choices.append(Choice(label, None, False, problem))
            continue
        cost = explanation.cost(name, lanes=lanes, **sizes)
        facts, reason = LEARNERS[name], ""
        if memory is not None and cost.bytes > memory:
            reason = "too large"
        elif unbiased and not facts.unbiased:
            reason = "biased"
        choices.append(Choice(label, cost, not reason, reason))
    return Recommendation(tuple(sorted(choices, key=lambda choice: not choice.fits)))


def table() -> list[str]:
    """All learners as the lines of a Markdown table."""
    lines = [
        "| learner | influence matrix | exact | unbiased | memory | time per step | asks for | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for facts in LEARNERS.values():
        told = (f"`{facts.call}`", facts.influence, _yes(facts.exact), _yes(facts.unbiased))
        lines.append(f"| {' | '.join((*told, *facts[4:]))} |")
    return lines


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; those in `right` to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    align = [">" if i in right else "<" for i in range(len(widths))]
    return [
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]


def _refused(structure, name: str) -> str:
    """Why a cell is not one for a learner, or nothing."""
    asked = LEARNERS[name].factorises
    try:
        if asked == _GROUPS:
            check_factorises(structure, name)
        elif asked == _LOCAL:
            local_past(structure, name, None, alone=name == "rflo")
    except ValueError as error:
        return str(error).split(";")[1].strip().removeprefix("got ")
    return ""


def _thousands(cost: Cost) -> tuple[str, str]:
    return f"{cost.bytes / 1e3:,.1f}", f"{cost.operations / 1e3:,.1f}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
