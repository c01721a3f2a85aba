"""The structure of a cell as a table, and what a learner costs on it: bytes and operations."""

import math
from typing import NamedTuple

import jax

from foretrace._format import columns
from foretrace._types import Cell, Params
from foretrace.learners._catalogue._names import Choice, parse
from foretrace.learners._catalogue._spec import WEIGHTS, CellSizes
from foretrace.structure._find import structure_of
from foretrace.structure._structure import Structure

_SHOWN = ("rtrl", "ok:8", "ok:8/8", "kf_rtrl", "uoro", "tbptt:25")


class Cost(NamedTuple):
    """What one learner needs on one cell.

    Attributes:
        bytes: of its state, all lanes: hidden state, influence and window.
        operations: floating-point operations per step, all lanes, averaged over a block: forward pass,
            gradient and influence, leading terms.
    """

    bytes: int
    operations: int


class Explanation:
    """A cell's structure as a table; `str()` prints it.

    Attributes:
        structure: groups, input factors and leaves that do not factorise.
        parameters: number of parameters, P.
        groups: number of Kronecker groups.
    """

    def __init__(self, cell: Cell, structure: Structure) -> None:
        self._cell, self.structure = cell, structure
        self.parameters = sum(math.prod(leaf.shape) for leaf in structure.leaves)
        self.groups = len(structure.groups)
        self._sizes = CellSizes(structure)

    def cost(self, learner: str | Choice, *, lanes: int = 1) -> Cost:
        """Memory and time of a learner on this cell.

        Args:
            learner: its name, such as "ok:8/16"; of its least block unless it says another.
            lanes: number of streams.

        Raises:
            ValueError: there is no such learner, or the cell is not one for it.
        """
        choice = parse(learner) if isinstance(learner, str) else learner
        params = jax.tree.unflatten(self.structure.treedef, self.structure.leaves)
        init = choice.build(self._cell).init
        state = jax.eval_shape(lambda params: init(jax.random.key(0), params, lanes), params)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        operations = choice.operations(self._sizes, choice.block or choice.spec.block)
        return Cost(size, int(lanes * choice.copies * sum(operations.values())))

    def best_block(self, learner: str | Choice, *, lanes: int = 1) -> int:
        """The block, a power of two up to 64, at which a step should take the least time.

        A longer block spreads moving, comparing and mixing the past over more steps, but brings more terms
        to each reduction, a longer way back to each gradient, and weights to keep at every step, once for
        all lanes. Operations are weighed by the time they took beside a large matrix product
        (`foretrace reproduce block` shows the choice beside a sweep).

        Args:
            learner: its name, such as "ok:8"; 1 for a learner that takes no block.
            lanes: number of streams.
        """
        choice = parse(learner) if isinstance(learner, str) else learner
        if not choice.spec.takes_block:
            return 1
        leaves = jax.tree.unflatten(self.structure.treedef, self.structure.leaves)
        step_weights = sum(math.prod(leaf.shape) for leaf in self.structure.weights(leaves))

        def time(block):
            # In a block lanes share the weights that they are carried through: one large product for all.
            weights = WEIGHTS | {"jacobians": 0.5} if lanes > 1 and block > 1 else WEIGHTS
            counts = choice.operations(self._sizes, block)
            each = sum(weights[kind] * count for kind, count in counts.items())
            return lanes * each + WEIGHTS["keep"] * step_weights * (block > 1)

        blocks = (2**i for i in range(7))
        return min((block for block in blocks if block >= choice.spec.block), key=time)

    def lines(self) -> list[str]:
        """The sizes, and every parameter with its group: the first half of `str()`."""
        structure = self.structure
        rows = [("parameter", "shape", "group", "input factor")]
        for i, group in enumerate(structure.groups, start=1):
            for m in group.members:
                rows.append((m.path, _shape(structure.leaves[m.leaf]), str(i), f"{m.origin} ({m.rows})"))
        for leaf in structure.dense:
            rows.append((leaf.path, _shape(structure.leaves[leaf.leaf]), "-", f"none: {leaf.reason}"))
        rows += [(path, "", "-", "none: unused") for path in structure.unused]
        head = f"state {structure.state_size}, parameters {self.parameters}, groups {self.groups}"
        return [head, "", *columns(rows, rule=True)]

    def __str__(self) -> str:
        rows = [("learner", "kB per lane", "kFLOP per step")]
        for name in _SHOWN:
            if parse(name).spec.requires.refusal(self.structure):
                continue
            cost = self.cost(name)
            rows.append((name, f"{cost.bytes / 1e3:,.1f}", f"{cost.operations / 1e3:,.1f}"))
        return "\n".join([*self.lines(), "", *columns(rows, right=(1, 2), rule=True)])


def analyse(cell: Cell, params: Params | None = None) -> Explanation:
    """The structure of a cell, without printing it; see `explain`."""
    return Explanation(cell, structure_of(cell, params))


def explain(cell: Cell, params: Params | None = None) -> Explanation:
    """Prints and returns which parameters of a cell factorise, and what each learner costs on it.

    Args:
        cell: the cell.
        params: its parameters, only their shapes are read; those of `cell.init` by default.

    Returns:
        An `Explanation`.

    Example:
        >>> import foretrace as ft
        >>> table = ft.explain(ft.cells.rnn(hidden=4, inputs=2))  # doctest: +ELLIPSIS
        state 4, parameters 28, groups 1
        ...
        >>> table.groups
        1
    """
    explanation = analyse(cell, params)
    print(explanation)
    return explanation


def _shape(leaf) -> str:
    return " x ".join(str(n) for n in leaf.shape) or "scalar"
