"""Where everything lies on a mesh: the axes of each array over lanes and along columns of weights."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from foretrace._checks import UserError
from foretrace._types import Cell, Learner
from foretrace._xla import at_construction
from foretrace.learners._engine._kronecker_sum import Factors, KroneckerSum
from foretrace.learners._engine._past import GroupedGradient
from foretrace.learners._engine._sparse import SparsePast
from foretrace.learners._engine._window import WindowState
from foretrace.learners._ktp import KTPPast, Triple
from foretrace.learners._low_rank import LowRankPast
from foretrace.learners._rtrl import RTRLPast
from foretrace.learners._sketch import SketchPast
from foretrace.learners._uoro import UOROPast
from foretrace.learners.contrib._kernl import KeRNLPast
from foretrace.learners.contrib._pre_uoro import PreUOROPast
from foretrace.learners.contrib._r_kf_rtrl import Reversed, RKFPast
from foretrace.scale._mesh import check_lanes, divides
from foretrace.structure._find import structure_of
from foretrace.structure._structure import Structure
from foretrace.training._guard import lane_axes

# Axes, without that of the lanes, which run along columns of the weights, in the order of preference: by
# the record that holds an array, and the field. What is not here is whole on every device of a row.
_COLUMNS: dict[type, dict[str, tuple[int, ...]]] = {
    Factors: {"right": (1,)},
    KroneckerSum: {"dense": (1,)},
    KTPPast: {"dense": (1,)},
    KeRNLPast: {"beta": (1,)},
    GroupedGradient: {"groups": (1,), "dense": (0,)},
    LowRankPast: {"right": (2,), "dense": (1,)},
    PreUOROPast: {"w": (1,), "dense": (1,)},
    RKFPast: {"dense": (1,)},
    RTRLPast: {"groups": (2,), "dense": (1,)},
    # (K, C, F, G): columns lie in C, or in G where each unit has a set of its own; rows are parameters too.
    SketchPast: {"near": (1, 3, 2), "right": (1, 3, 2)},
    SparsePast: {"parts": (1, 3, 2)},
    Reversed: {"a": (0,), "b": (0,)},
    Triple: {"b": (1,)},
    UOROPast: {},
}


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Of one array: its lanes axis, or -1, and the axes along columns, in the order of preference."""

    lanes: int = -1
    columns: tuple[int, ...] = ()


class Layout:
    """Where parameters, gradients, optimiser and the state of a learner lie on a mesh.

    Along `units` everything with a column for each pre-activation is divided: weights, gradients, what an
    optimiser keeps of them, step weights in a window, and right factors, rows or influence matrices of the
    past. Along `lanes` everything that has lanes. What is left, such as left factors and, along `units`,
    hidden states, is whole on every device.

    Attributes:
        mesh: the devices.
    """

    def __init__(self, cell: Cell, mesh: Mesh) -> None:
        """Finds the columns of a cell's weights.

        Raises:
            ValueError: the mesh does not divide them.
        """
        self.mesh, self._structure = mesh, structure_of(cell)
        for group in self._structure.groups:
            if not divides(mesh, "units", group.preact_size):
                name = group.members[0].path
                raise UserError(
                    f"mesh must divide the {group.preact_size} columns of {name!r}; got "
                    f"units={mesh.shape['units']}; use a divisor, or another size of the cell."
                )
        axes = [_Axes(-1, columns) for columns in column_axes(self._structure)]
        self._params_axes = jax.tree.unflatten(self._structure.treedef, axes)
        self._params = jax.tree.unflatten(self._structure.treedef, self._structure.leaves)

    def check_lanes(self, lanes: int | None) -> None:
        """Raises ValueError unless the mesh divides so many lanes; None is a single stream."""
        check_lanes(self.mesh, lanes)

    def params(self, tree: Any) -> Any:
        """Shardings of the cell's parameters, or of a gradient."""
        return self._shardings(tree, self._params_axes)

    def around(self, tree: Any) -> Any:
        """Shardings of a tree with the cell's parameters, or copies of them, as an optimiser's state.

        An array is one of them if it has the shape of a parameter and its path ends in that one's path;
        other arrays are whole on every device.
        """
        marks = jax.tree_util.tree_leaves_with_path(self._params_axes)
        known = [(jax.tree_util.keystr(path), mark) for path, mark in marks]
        shapes = [leaf.shape for leaf in jax.tree.leaves(self._params)]

        def find(path, leaf):
            name = jax.tree_util.keystr(path)
            fits = (
                mark
                for (end, mark), shape in zip(known, shapes, strict=True)
                if name.endswith(end) and leaf.shape == shape
            )
            return next(fits, _Axes())

        return self._shardings(tree, jax.tree_util.tree_map_with_path(find, tree))

    def state(self, tree: Any, learner: Learner) -> Any:
        """Shardings of the state of a learner, or of its shapes.

        Raises:
            ValueError: the mesh does not divide the lanes.
        """
        pairs = zip(jax.tree.leaves(tree.hidden), jax.tree.leaves(self._structure.hidden), strict=True)
        lanes = next((a.shape[0] for a, cell in pairs if a.ndim > cell.ndim), None)
        check_lanes(self.mesh, lanes)

        def init(lanes):
            key = jax.random.key(0)
            return jax.eval_shape(lambda params: learner.init(key, params, lanes=lanes), self._params)

        where = lane_axes(init, lanes or 1)
        return self._shardings(tree, jax.tree.map(_after_lanes, self._columns(tree), where))

    def streams(self, tree: Any, init: Callable[[Any, int], Any], lanes: int) -> Any:
        """Shardings of what has lanes and no columns, such as the state of a task.

        Args:
            tree: the state, or its shapes.
            init: `(key, lanes) -> state`.
            lanes: number of lanes.

        Raises:
            ValueError: the mesh does not divide the lanes.
        """
        check_lanes(self.mesh, lanes)
        where = lane_axes(lambda n: jax.eval_shape(lambda: init(jax.random.key(0), n)), lanes)
        return self._shardings(tree, jax.tree.map(_Axes, where))

    def whole(self, tree: Any) -> Any:
        """Shardings of what is whole on every device."""
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, PartitionSpec()), tree)

    def _columns(self, node: Any) -> Any:
        """For every array of a state its axes along columns; those of one lane, where it has lanes."""
        known = _COLUMNS.get(type(node), {})

        def field(name):
            value = getattr(node, name)
            if name == "weights" and isinstance(node, WindowState):  # which have no lanes, and a step first
                return tuple(
                    _Axes(-1, tuple(1 + axis for axis in axes.columns))
                    for axes in (self._structure.weights(self._params_axes) if value else ())
                )
            if name not in known:
                return self._columns(value)
            return jax.tree.map(lambda leaf: _Axes(-1, known[name]), value)

        if hasattr(node, "_fields"):
            return type(node)(*map(field, node._fields))
        if isinstance(node, list | tuple):
            return type(node)(map(self._columns, node))
        return jax.tree.map(lambda leaf: _Axes(), node)

    def _shardings(self, tree: Any, axes: Any) -> Any:
        return jax.tree.map(self._sharding, tree, axes)

    def _sharding(self, leaf: Any, axes: _Axes) -> NamedSharding:
        spec: list[str | None] = [None] * leaf.ndim
        if axes.lanes >= 0 and leaf.ndim:
            spec[axes.lanes] = "lanes"
        for axis in axes.columns:
            if axis < leaf.ndim and leaf.shape[axis] > 1 and divides(self.mesh, "units", leaf.shape[axis]):
                spec[axis] = "units"
                break
        return NamedSharding(self.mesh, PartitionSpec(*spec))


def _after_lanes(axes: _Axes, lanes: int) -> _Axes:
    """The axes of an array whose axis of lanes is this one, or -1, before those of one lane."""
    return _Axes(lanes, tuple(lanes + 1 + axis for axis in axes.columns)) if lanes >= 0 else axes


def column_axes(structure: Structure) -> list[tuple[int, ...]]:
    """For every leaf of the parameters its axes along columns of its group, the longest first."""
    out: list[tuple[int, ...]] = [()] * len(structure.leaves)
    for member in (member for group in structure.groups for member in group.members):
        shape = structure.leaves[member.leaf].shape
        with at_construction():
            numbers = np.asarray(member.matrix(np.arange(math.prod(shape), dtype=np.int32).reshape(shape)))
        places = np.unravel_index(numbers, shape) if shape else ()
        along = [axis for axis, place in enumerate(places) if (place == place[:1]).all()]
        out[member.leaf] = tuple(sorted(along, key=lambda axis: -shape[axis]))
    return out


def spread_of(tree: Any, mesh: Mesh) -> str:
    """How much of a tree of arrays, or of shapes with shardings, lies on each device, in words."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    each = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
    sizes = ", ".join(f"{size} along {name}" for name, size in mesh.shape.items())
    return f"{mesh.size} devices, {sizes}: {each:,} bytes of state and parameters on each, of {whole:,}"
