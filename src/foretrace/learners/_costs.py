"""What a cell's structure is and what a learner costs on it: groups, bytes, operations."""

import math
from functools import cached_property
from typing import NamedTuple

import jax

from foretrace._checks import UserError
from foretrace._types import Cell, Params
from foretrace.structure._find import structure_of
from foretrace.structure._pattern import find_pattern
from foretrace.structure._sparsity import (
    ColumnSets,
    Sparsity,
    find_sparsity,
    is_sparse_cheaper,
    sets_within,
)
from foretrace.structure._structure import Structure

_LEARNERS = (
    *("rtrl", "uoro", "kf_rtrl", "ok", "ktp", "sketch", "snap", "eprop", "rflo"),
    *("tbptt", "immediate", "frozen"),
)
# Time per operation beside a large matrix product: thin products wait for memory, small ones for calls,
# and a number kept for later is written, and read from where it is no longer at hand.
_WEIGHTS = {
    "forward": 2,
    "backward": 2,
    "transport": 1,
    "move": 1,
    "read": 4,
    "gram": 8,
    "mix": 4,
    "decompose": 400,
    "keep": 100,
}


class Cost(NamedTuple):
    """What one learner needs on one cell.

    Attributes:
        bytes: of its influence and window, all lanes.
        operations: floating-point operations per step, all lanes, averaged over a block: forward pass,
            gradient and influence, leading terms.
    """

    bytes: int
    operations: int


class Explanation:
    """A cell's structure as a table; `str()` prints it.

    Attributes:
        structure: what was found.
        parameters: number of parameters, P.
        groups: number of Kronecker groups.
    """

    def __init__(self, structure: Structure):
        self.structure = structure
        self.parameters = sum(math.prod(leaf.shape) for leaf in structure.leaves)
        self.groups = len(structure.groups)
        self._memory: dict = {}

    def cost(
        self,
        learner: str,
        *,
        rank: int = 1,
        order: int = 1,
        block: int = 1,
        window: int = 1,
        lanes: int = 1,
    ) -> Cost:
        """Memory and time of a learner on this cell.

        Args:
            learner: its name, such as "ok".
            rank: of `ok`, `ktp` and `sketch`.
            order: of `snap`.
            block: steps per block; for `tbptt` see `window`.
            window: of `tbptt`.
            lanes: number of streams.

        Raises:
            ValueError: the learner is not one of these.
        """
        k = {"tbptt": window, **dict.fromkeys(("immediate", "frozen", "eprop", "rflo"), 1)}.get(
            learner, block
        )
        r = rank if learner in ("ok", "ktp", "sketch") else 1
        operations = sum(self._operations(learner, r, k, order).values())
        size, sizes, exact = self.structure.state_size, self._sizes, self._exact
        sets = self._kept(learner, order)
        shared = k * self._kept_weights(learner, k)
        numbers = k * sum(math.prod(a.shape) for a in self.structure.residual_shapes) + size
        if sets is not None:
            near = sum(math.prod(part.shape) for part in sets)
            numbers += near
            if learner == "sketch":
                columns = sum(math.prod(part.shape[1:]) for part in sets)
                numbers += min(r, size) * (size + columns) + 1
        elif learner in ("rtrl", "uoro"):
            numbers += (sum(f * z for f, z in sizes) + exact) * (size if learner == "rtrl" else 1)
            numbers += size * (learner == "uoro")
        elif learner == "ktp":
            numbers += sum(f + r * (size + z) for f, z in sizes) + size * exact
        elif learner in ("ok", "kf_rtrl"):
            numbers += sum(r * (f + size * z) for f, z in sizes) + size * exact
        return Cost(
            int((lanes * numbers + shared) * self.structure.dtype.itemsize), int(lanes * operations)
        )

    def _kept_weights(self, learner: str, k: int) -> int:
        """Numbers of the parameters that a step leaves in the window of a block, for all lanes."""
        exact = learner == "rtrl" and self._kept(learner, 1) is not None
        if learner == "tbptt" or (k == 1 and not exact):
            return 0
        leaves = jax.tree.unflatten(self.structure.treedef, self.structure.leaves)
        return sum(math.prod(leaf.shape) for leaf in self.structure.weights(leaves))

    def _kept(self, learner: str, order: int) -> list[ColumnSets] | None:
        """What of the influence is kept entry by entry; None for a learner that keeps it another way."""
        key = learner, order
        if key not in self._memory:
            found = None
            if learner in ("snap", "sketch"):
                found = sets_within(self.structure, self._reach, order if learner == "snap" else 1)
            elif learner in ("eprop", "rflo"):
                found = sets_within(self.structure, self._reach, None, without_weights=True)
            elif learner == "rtrl" and is_sparse_cheaper(self.structure, self._reach):
                found = sets_within(self.structure, self._reach, None)
            self._memory[key] = found
        return self._memory[key]

    @cached_property
    def _reach(self) -> Sparsity:
        return find_sparsity(self.structure)

    def best_block(self, learner: str, *, rank: int = 1, lanes: int = 1) -> int:
        """The block, a power of two up to 64, at which a step should take the least time.

        A longer block spreads moving, comparing and mixing the past over more steps, but brings more terms
        to each reduction, a longer way back to each gradient, and weights to keep at every step, once for
        all lanes. Operations are weighed by what they took beside a large matrix product where this was
        measured.

        Args:
            learner: as in `cost`.
            rank: of `ok`, `ktp` and `sketch`.
            lanes: number of streams.
        """
        r = rank if learner in ("ok", "ktp", "sketch") else 1

        def time(k):
            # In a block lanes share the weights that they are carried through: one large product for all.
            weights = _WEIGHTS | {"transport": 0.5} if lanes > 1 and k > 1 else _WEIGHTS
            each = sum(weights[name] * n for name, n in self._operations(learner, r, k).items())
            return lanes * each + _WEIGHTS["keep"] * self._kept_weights(learner, k)

        return min((2**i for i in range(7)), key=time)

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        return [(g.factor_size, g.preact_size) for g in self.structure.groups]

    @property
    def _exact(self) -> int:
        return sum(leaf.size for leaf in self.structure.dense)

    def _operations(self, learner: str, r: int, k: int, order: int = 1) -> dict[str, int | float]:
        """Floating-point operations of one lane's step, by kind."""
        if learner not in _LEARNERS:
            raise UserError(f"learner must be one of {', '.join(_LEARNERS)}; got {learner!r}; choose one.")
        size, exact = self.structure.state_size, self._exact
        weights = sum(f * z for f, z in self._sizes)
        area = size * sum(z for _, z in self._sizes)
        if learner == "frozen":
            return {"forward": 2 * weights}
        if learner in ("tbptt", "immediate"):  # one update per window: one sweep
            return {"forward": 2 * weights, "backward": 4 * weights}
        # A gradient runs back through half a block in the mean: credit, then outer products.
        counts = {"forward": 2 * weights, "backward": (k + 1) / 2 * 4 * weights}
        if learner == "uoro":
            return counts | {"read": 2 * weights, "mix": 8 * weights / k, "transport": 4 * weights}
        if (sets := self._kept(learner, order)) is not None:
            kept = sum(math.prod(part.shape) for part in sets)
            counts |= {"read": 2 * kept, "move": 2 * sum(part.operations for part in sets) + 2 * kept}
            counts["transport"] = self._jacobian_operations(learner)
            if learner == "sketch":
                columns = sum(math.prod(part.shape[1:]) for part in sets)
                reached = sum(part.rows.size for part in sets)
                counts["mix"] = 2 * r**2 * columns + 2 * r * kept + 4 * size**2 * reached
                counts["decompose"] = 25 * size**3 / _WEIGHTS["decompose"]
            return counts
        if learner == "ktp":
            vectors = size * len(self._sizes) + area / size
            return counts | {
                "transport": 0 if self.structure.is_elementwise else 4 * size * weights,
                "move": 2 * r * weights * len(self._sizes),
                "mix": 2 * r * area + 16 * r**2 * vectors,
                "decompose": 2e4 + 16 * r**3,
            }
        if self.structure.is_elementwise:
            counts["transport"] = 2 * area * (size if k > 1 else 1)  # the first Jacobian meets no other
        else:
            counts["transport"] = 4 * size * (weights + exact)
        if learner == "rtrl":
            whole = size * (weights + exact)
            return counts | {"move": 2 * size * whole / k, "read": 2 * whole, "mix": 2 * size * weights}
        new = 0 if k == 1 and self.structure.is_elementwise else k  # of one step, the entries are few
        return counts | {
            "move": 2 * size * (r * area + size * exact) / k,
            "read": 2 * r * area,
            "gram": 2 * (r + new) ** 2 * area / k if learner == "ok" else 2 * (r + new) * area / k,
            "mix": 2 * r * (r + new) * area / k,
            "decompose": (1e4 + (r + k) ** 3) / k if learner == "ok" else 0,
        }

    def _jacobian_operations(self, learner: str) -> int:
        """Of the state Jacobian: none beyond a pass where its rows can be found together."""
        weights = sum(f * z for f, z in self._sizes)
        state = self._reach.direct if learner in ("eprop", "rflo") else self._reach.state
        if learner != "sketch" and find_pattern(state.T) is not None:
            return 4 * weights
        size = self.structure.state_size
        area = size * sum(z for _, z in self._sizes)
        return 2 * area if self.structure.is_elementwise else 4 * size * (weights + self._exact)

    def lines(self) -> list[str]:
        """The sizes, and every parameter with its group: the first half of what `str()` gives."""
        structure = self.structure
        rows = [("parameter", "shape", "group", "input factor")]
        for i, group in enumerate(structure.groups, start=1):
            for m in group.members:
                rows.append((m.path, _shape(structure.leaves[m.leaf]), str(i), f"{m.origin} ({m.rows})"))
        for leaf in structure.dense:
            rows.append((leaf.path, _shape(structure.leaves[leaf.leaf]), "-", f"none: {leaf.reason}"))
        rows += [(path, "", "-", "none: unused") for path in structure.unused]
        head = f"state {structure.state_size}, parameters {self.parameters}, groups {self.groups}"
        return [head, "", *_table(rows)]

    def __str__(self) -> str:
        costs = [("learner", "kB per lane", "kFLOP per step")]
        choices: list[tuple[str, str, dict]] = [
            ("rtrl", "rtrl", {}),
            ("ok:8", "ok", {"rank": 8}),
            ("ok:8, block 8", "ok", {"rank": 8, "block": 8}),
            ("kf_rtrl", "kf_rtrl", {}),
            ("uoro", "uoro", {}),
            ("tbptt:25", "tbptt", {"window": 25}),
        ]
        for label, name, options in choices:
            cost = self.cost(name, **options)
            costs.append((label, f"{cost.bytes / 1e3:,.1f}", f"{cost.operations / 1e3:,.1f}"))
        return "\n".join([*self.lines(), "", *_table(costs, right=True)])


def describe(cell: Cell, params: Params | None = None) -> Explanation:
    """The structure of a cell, without printing it; see `explain`."""
    return Explanation(structure_of(cell, params))


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
    explanation = describe(cell, params)
    print(explanation)
    return explanation


def _shape(leaf) -> str:
    return " x ".join(str(n) for n in leaf.shape) or "scalar"


def _table(rows: list[tuple[str, ...]], *, right: bool = False) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    align = [">" if right and i else "<" for i in range(len(widths))]
    rows = [rows[0], tuple("-" * w for w in widths), *rows[1:]]
    return [
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]
