"""The classes of cells that learners ask for: each a sentence for tables, and a test with its reason."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from foretrace._checks import UserError
from foretrace.structure._sparsity import find_sparsity, reachable
from foretrace.structure._structure import Structure

# A dense leaf this many times as large as the state is still cheap to track exactly beside the groups.
DENSE_PER_STATE = 4


class Refusal(NamedTuple):
    """Why a cell is not of a class.

    Attributes:
        needs: a sentence's middle: the class.
        got: the part of the cell that is not of it.
        remedy: the way out.
    """

    needs: str
    got: str
    remedy: str


class Requirement(NamedTuple):
    """A class of cells.

    Attributes:
        text: its name in tables.
        refusal: `(structure) -> Refusal`, or None where the cell is of the class.
    """

    text: str
    refusal: Callable[[Structure], Refusal | None]

    def check(self, structure: Structure, name: str) -> None:
        """Raises UserError, in the words of the learner of this name, unless the cell is of the class."""
        refusal = self.refusal(structure)
        if refusal is not None:
            raise UserError(f"{name} needs {refusal.needs}; got {refusal.got}; {refusal.remedy}.")


def _large_leaves(structure: Structure):
    return [leaf for leaf in structure.dense if leaf.size > DENSE_PER_STATE * structure.state_size]


def _factorises(structure: Structure) -> Refusal | None:
    for leaf in _large_leaves(structure):
        return Refusal(
            "every weight of the cell to factorise",
            f"{leaf.path!r}, of which {leaf.reason}",
            "multiply it once with one vector in cell.step, or use rtrl(cell) or uoro(cell)",
        )
    return None


def units_of(structure: Structure) -> np.ndarray:
    """(S, S) bool: entries of the state that are connected without a weight of a group."""
    direct = find_sparsity(structure).direct
    return reachable(np.eye(structure.state_size, dtype=bool), direct | direct.T, None)


def acts_on_one(structure: Structure, units: np.ndarray) -> Refusal | None:
    """Refuses a parameter that acts on several of the units, (S, S) bool, within a step."""
    for leaf in _large_leaves(structure):
        return Refusal(
            "every matrix of the cell to factorise",
            f"{leaf.path!r}, which does not",
            "multiply it once with one vector in cell.step, or use snap(cell, order=1)",
        )
    paths = [group.members[0].path for group in structure.groups] + [leaf.path for leaf in structure.dense]
    for path, places in zip(paths, find_sparsity(structure).immediate, strict=True):
        first = places.argmax(axis=0)  # all that a column reaches must be in the unit of its first row
        if (places & ~units[:, first]).any():
            return Refusal(
                "every parameter to act on one unit within a step",
                f"{path!r}, which acts on several",
                "use snap(cell, order=1)",
            )
    return None


def _single_units(structure: Structure) -> Refusal | None:
    units = units_of(structure)
    if not _large_leaves(structure) and (units.sum(axis=0) > 1).any():
        return Refusal(
            "units of one number, that hear nothing but themselves beside the weights",
            f"units of {units.sum(axis=0).max()}",
            "use eprop(cell)",
        )
    return acts_on_one(structure, units)


ANY_CELL = Requirement("any cell", lambda structure: None)
FACTORISES = Requirement("weights factorise", _factorises)
UNITS_APART = Requirement(
    "units apart but for weights", lambda structure: acts_on_one(structure, units_of(structure))
)
SINGLE_UNITS = Requirement("units apart but for weights", _single_units)
