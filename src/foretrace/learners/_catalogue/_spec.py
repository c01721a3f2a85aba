"""A learner as data: each paper's file ends in its `SPEC`, which everything that lists learners reads."""

import math
from collections.abc import Callable
from typing import NamedTuple

from foretrace._types import Learner
from foretrace.learners._catalogue._requirements import Requirement
from foretrace.structure._pattern import find_pattern
from foretrace.structure._sparsity import ColumnSets, find_sparsity, sets_within
from foretrace.structure._structure import Structure

# Time per operation beside one of a large matrix product, by kind, fitted to `foretrace bench` on two
# cores: thin products wait for memory, small ones for calls, and a number kept for later is written, and
# read from where it is no longer at hand.
WEIGHTS = {
    "forward": 2,
    "backward": 2,
    "jacobians": 1,
    "move": 1,
    "read": 4,
    "gram": 8,
    "mix": 4,
    "decompose": 400,
    "keep": 100,
}


Operations = dict[str, int | float]  # floating-point operations of one lane's step, by kind


class Number(NamedTuple):
    """The size that NAME:N sets.

    Attributes:
        keyword: of the factory: "rank", "order" or "window".
        default: N where none is given.
        recommended: sizes that `recommend` considers, in their order.
        within_state: whether it may not exceed the size of the hidden state.
    """

    keyword: str
    default: int
    recommended: tuple[int, ...]
    within_state: bool = False

    def fitting(self, state_size: int) -> tuple[int, ...]:
        """Those of `recommended` that a hidden state of this size allows, or the largest that it does."""
        if not self.within_state:
            return self.recommended
        return tuple(n for n in self.recommended if n <= state_size) or (state_size,)


class Spec(NamedTuple):
    """Claims and costs of a learner, in the words of tables.

    Symbols in texts: S size of the state, P number of parameters, F and Z lengths of input factor and
    pre-activation, R rank, K entries of the state that a parameter reaches.

    Attributes:
        factory: `(cell, *, ..) -> learner`; its name is the learner's.
        call: the call, as text.
        influence: the representation of the influence matrix.
        exact: whether its gradient equals that of the loss unrolled from the start. (This and the fields
            below assume fixed parameters.)
        unbiased: whether its gradient does so in the mean.
        memory: floats per lane beside those of a window.
        time: operations per step, leading term, dense recurrence, block 1.
        requires: the class of cells that it takes.
        source: paper.
        operations: `(sizes, number, block) -> {kind: floating-point operations of one lane's step}`; kinds
            are the keys of `WEIGHTS`.
        order: its place among learners of the same claims, from little noise or bias to much.
        number: its size, or None.
        takes_block: whether the factory has the keyword `block`.
        takes_age: whether it has the keyword `age`.
        takes_past_dtype: whether it has the keyword `past_dtype`.
        block: the fewest steps that a block should have; it has them where a name leaves it open.
        one_update: whether it is always used with one update per window.
        papers: keys of papers.bib, the one that describes it first.
    """

    factory: Callable[..., Learner]
    call: str
    influence: str
    exact: bool
    unbiased: bool
    memory: str
    time: str
    requires: Requirement
    source: str
    operations: "Callable[[CellSizes, int, int], Operations]"
    order: int
    number: Number | None = None
    takes_block: bool = True
    takes_age: bool = False
    takes_past_dtype: bool = False
    block: int = 1
    one_update: bool = False
    papers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that the command line and tables use."""
        return self.factory.__name__


class CellSizes:
    """Sizes of a cell's step from which operations are counted.

    Attributes:
        structure: of the cell.
        state: S.
        weights: sum over groups of F Z.
        area: S times the sum over groups of Z.
        dense: numbers in leaves that do not factorise.
        groups: number of groups.
        is_elementwise: whether pre-activations act elementwise on the state.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.state = structure.state_size
        self.weights = sum(g.factor_size * g.preact_size for g in structure.groups)
        self.area = self.state * sum(g.preact_size for g in structure.groups)
        self.dense = sum(leaf.size for leaf in structure.dense)
        self.groups = len(structure.groups)
        self.is_elementwise = structure.linear_part.is_elementwise

    def window(self, block: int) -> Operations:
        """A step forward, and a gradient that runs back through half a block in the mean."""
        return {"forward": 2 * self.weights, "backward": (block + 1) / 2 * 4 * self.weights}

    def jacobians(self, block: int) -> int | float:
        """The Jacobians of a step, and the product that carries them to the block's end."""
        if self.is_elementwise:
            return 2 * self.area * (self.state if block > 1 else 1)  # the first one meets no other
        return 4 * self.state * (self.weights + self.dense)

    def column_sets(self, steps: int | None, without_weights: bool = False) -> list[ColumnSets]:
        """Columns of the influence matrix by the rows that they reach; see `sets_within`."""
        return sets_within(self.structure, find_sparsity(self.structure), steps, without_weights)

    def sparse_influence(self, sets: list[ColumnSets], without_weights: bool = False) -> Operations:
        """Carrying and reading the entries of these sets."""
        entries = sum(math.prod(part.shape) for part in sets)
        sparsity = find_sparsity(self.structure)
        state = sparsity.direct if without_weights else sparsity.state
        # Rows of the state Jacobian that share no column are found in one pass.
        one_pass = find_pattern(state.T) is not None
        return {
            "read": 2 * entries,
            "move": 2 * sum(part.operations for part in sets) + 2 * entries,
            "jacobians": 4 * self.weights if one_pass else self.jacobians(1),
        }

    def within_units(self, block: int) -> Operations:
        """The costs of a learner that carries each unit's own influence, along no weight."""
        sets = self.column_sets(None, without_weights=True)
        return self.window(block) | self.sparse_influence(sets, without_weights=True)
