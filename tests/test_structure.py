"""The Kronecker structure of built-in cells and of cells of a user's own."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import foretrace as ft
from foretrace.structure._jacobians import find_patterns, jacobian_rule
from foretrace.structure._sparsity import find_sparsity
from foretrace.structure._structure import Structure
from oracles import (
    CELLS,
    assert_close,
    draw,
    noise,
    precision,
    quick_compilation,  # noqa: F401
    user_cell,
)

MASK = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], np.float32)
WVB = {"w": (3, 3), "v": (3, 2), "b": (3,)}


def constant(a):
    return jnp.asarray(a, precision())


class Case(NamedTuple):
    """A cell and what must be found in it: groups, dense leaf -> part of the reason, unused leaves."""

    make: object
    groups: tuple
    dense: dict = {}  # noqa: RUF012
    unused: tuple = ()


def own(step, *groups, dense=None, unused=(), shapes=WVB, **sizes):
    return Case(lambda: user_cell(step, shapes, **sizes), groups, dense or {}, unused)


def plain(p, h, x):
    return p["w"] @ h + p["v"] @ x


def normed(p, h, x):
    z = plain(p, h, x)
    z = (z - jnp.mean(z)) / jnp.sqrt(jnp.var(z) + 1e-3)
    return jnp.tanh(p["gain"] * z + p["shift"])


def gates(p, h, x):
    gate = jax.nn.sigmoid(h @ p["wg"] + x @ p["vg"] + p["bg"])
    return gate * h + (1 - gate) * jnp.tanh(h @ p["wc"] + x @ p["vc"] + p["bc"])


def wide_heads(p, h, x):
    return jnp.tanh(jnp.einsum("kij,j->ki", p["w"], h).reshape(-1) + p["v"] @ x)


def tied(p, h, x):
    return jnp.tanh(p["w"] @ jnp.tanh(p["w"] @ h) + p["v"] @ x)


def embedded(p, h, x):
    return jnp.tanh(p["w"] @ h + p["e"][x])


def integer_input_cell():
    shapes = {"w": (3, 3), "e": (5, 3)}
    return user_cell(embedded, shapes, inputs=jax.ShapeDtypeStruct((), "int32"))


WIDE = {"w": (3, 3), "v": (2, 3), "b": (3,)}
GATES = {name + gate: shape for gate in "gc" for name, shape in WIDE.items()}
IRBF = {"input", "recurrent", "bias"}

CASES = {
    "rnn": Case(CELLS["rnn"], (IRBF,)),
    "highway": Case(CELLS["highway"], (IRBF,)),
    "highway of depth 2": Case(CELLS["highway2"], (IRBF, {"deeper.0.recurrent", "deeper.0.bias"})),
    "gru": Case(
        CELLS["gru"],
        tuple({f"{gate}.{name}" for name in IRBF} for gate in ("reset", "update", "candidate")),
    ),
    "lstm": Case(CELLS["lstm"], (IRBF,)),
    "W @ x": own(lambda p, h, x: jnp.tanh(plain(p, h, x) + p["b"]), {"w", "v", "b"}),
    "x @ W": own(lambda p, h, x: jnp.tanh(h @ p["w"] + x @ p["v"].T + p["b"]), {"w", "v", "b"}),
    "einsum": own(
        lambda p, h, x: jnp.tanh(
            jnp.einsum("ji,j->i", p["w"], h) + jnp.einsum("ij,j->i", p["v"], x) + p["b"]
        ),
        {"w", "v", "b"},
    ),
    "heads": own(wide_heads, {"w", "v"}, shapes={"w": (2, 2, 4), "v": (4, 2)}, hidden=4),
    "under jit": own(jax.jit(lambda p, h, x: jnp.tanh(jax.jit(plain)(p, h, x) + p["b"])), {*"wvb"}),
    "rematerialised": own(
        jax.checkpoint(lambda p, h, x: jnp.tanh(plain(p, h, x) + p["b"])), {"w", "v", "b"}
    ),
    "one function called twice": own(
        lambda p, h, x: jax.jit(jnp.dot)(p["w"], h) * jax.jit(jnp.dot)(p["u"], h),
        {"w"},
        {"u"},
        shapes={"w": (3, 3), "u": (3, 3)},
    ),
    "transposed": own(
        lambda p, h, x: jnp.tanh(jnp.transpose(p["w"]) @ h + x @ p["v"].T - p["b"]), {"w", "v", "b"}
    ),
    "bias subtracted": own(lambda p, h, x: jnp.tanh(plain(p, h, x) - p["b"]), {"w", "v", "b"}),
    "product subtracted": own(
        lambda p, h, x: jnp.tanh(p["b"] - (p["w"] @ h - p["v"] @ x)), {"w", "v", "b"}
    ),
    "negated": own(lambda p, h, x: jnp.tanh(-(p["b"] - plain(p, h, x))), {"w", "v", "b"}),
    "residual": own(lambda p, h, x: h + plain(p, h, x) + p["b"], {"w", "v", "b"}),
    "linear": own(lambda p, h, x: plain(p, h, x) + p["b"], {"w", "v", "b"}),
    "row vectors": own(
        lambda p, h, x: jnp.tanh(h[None] @ p["w"] + x[None] @ p["v"].T + p["b"][None])[0],
        {"w", "v", "b"},
    ),
    "several groups": own(gates, {"wg", "vg", "bg"}, {"wc", "vc", "bc"}, shapes=GATES),
    "two layers in one state": Case(CELLS["layers"], ({"w0", "v0", "b0"}, {"w1", "v1"})),
    "low rank weights": own(
        lambda p, h, x: jnp.tanh(p["u"] @ (p["w"] @ h) + p["v"] @ x),
        {"u", "v"},
        {"w"},
        shapes={"u": (3, 1), "w": (1, 3), "v": (3, 2)},
    ),
    "layer norm": own(
        normed,
        {"w", "v"},
        {"shift"},
        dense={"gain": "'mul'"},
        shapes={"w": (3, 3), "v": (3, 2), "gain": (3,), "shift": (3,)},
    ),
    "gain and decay": Case(CELLS["gain"], ({"w", "v", "b"},), {"gain": "'mul'", "decay": "'mul'"}),
    "decays only": own(
        lambda p, h, x: jax.nn.sigmoid(p["d"]) * h + x, dense={"d": "'mul'"}, shapes={"d": (2,)}, hidden=2
    ),
    "mask on the input": own(
        lambda p, h, x: jnp.tanh(p["w"] @ (constant(MASK[0]) * h) + p["v"] @ x + p["b"]), {*"wvb"}
    ),
    "mask on the weight": own(
        lambda p, h, x: jnp.tanh((constant(MASK) * p["w"]) @ h + p["v"] @ x + p["b"]),
        {"v", "b"},
        dense={"w": "'mul'"},
    ),
    "tied weight": own(tied, {"v"}, dense={"w": "used 2 times"}, shapes={"w": (3, 3), "v": (3, 2)}),
    "matrix times matrix": own(
        lambda p, h, x: jnp.tanh((p["w"] @ jnp.outer(h, x)) @ jnp.ones(2, h.dtype) + p["b"]),
        {"b"},
        dense={"w": "a matrix, not by a vector"},
        unused=("v",),
    ),
    "leaf never used": own(lambda p, h, x: jnp.tanh(p["w"] @ h + p["b"]), {"w", "b"}, unused=("v",)),
    "integer input": Case(integer_input_cell, ({"w"},), {"e": "not through a product"}),
}

every_case = pytest.mark.parametrize("name", CASES)


@cache
def traced_case(name, dtype):
    cell = CASES[name].make()
    return cell, draw(cell), ft.structure_of(cell, draw(cell))


def linearisation(name):
    """What the structure and what JAX say of one step at a random point."""
    cell, params, structure = traced_case(name, precision())
    hidden = noise(cell.initial_hidden(), 2)
    x = cell.example_input()
    x = noise(x, 3) if jnp.issubdtype(jax.tree.leaves(x)[0].dtype, jnp.floating) else x + 2
    tangents, credit = noise((params, hidden), 4), noise(structure.ravel(hidden), 5)

    def flat_step(params, hidden):
        return structure.ravel(cell.step(params, hidden, x))

    def found(params, hidden, tangents, credit):
        new, residuals = structure.forward(params, structure.ravel(hidden), x)
        leaves, factors = jax.tree.leaves(tangents[0]), structure.factors(residuals)
        preacts = [f @ w for f, w in zip(factors, structure.matrices(tangents[0]), strict=True)]
        dense = [leaves[leaf.leaf] for leaf in structure.dense]
        tangent = structure.pushforward(params, residuals, structure.ravel(tangents[1]), preacts, dense)
        back, preacts, dense = structure.pullback(params, residuals, credit)
        matrices = [jnp.outer(f, z) for f, z in zip(factors, preacts, strict=True)]
        return new, tangent, (structure.gradient(matrices, dense), structure.unravel(back))

    def expected(params, hidden, tangents, credit):
        new, tangent = jax.jvp(flat_step, (params, hidden), tangents)
        return new, tangent, jax.vjp(flat_step, params, hidden)[1](credit)

    return jax.jit(lambda *a: (found(*a), expected(*a)))(params, hidden, tangents, credit)


@every_case
def test_groups_are_found(name):
    case, (_, _, structure) = CASES[name], traced_case(name, precision())
    groups = [{member.path for member in group.members} for group in structure.groups]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, case.groups))
    reasons = {leaf.path: leaf.reason for leaf in structure.dense}
    assert reasons.keys() == case.dense.keys()
    for path, part in case.dense.items():
        assert part in reasons[path]
    assert structure.unused == case.unused


@every_case
def test_structure_is_the_cells_derivative_in_float64(x64, name):
    found, expected = linearisation(name)
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("name", ["lstm", "gru", "layer norm", "gain and decay", "tied weight"])
def test_structure_is_the_cells_derivative_in_float32(name):
    found, expected = linearisation(name)
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm", "gain and decay", "transposed", "negated"])
def test_factor_times_preact_jacobian_is_the_immediate_jacobian(x64, name):
    cell, params, structure = traced_case(name, precision())
    hidden, x = noise(cell.initial_hidden(), 2), noise(cell.example_input(), 3)

    @jax.jit
    def immediate(params, hidden):
        _, residuals = structure.forward(params, structure.ravel(hidden), x)
        rows = jnp.eye(structure.state_size)
        back = jax.vmap(lambda row: structure.pullback(params, residuals, row))
        _, preact_jacobians, dense = back(rows)
        products = [
            jnp.einsum("f,sz->sfz", f, jacobian)
            for f, jacobian in zip(structure.factors(residuals), preact_jacobians, strict=True)
        ]
        return jax.vmap(structure.gradient)(products, dense)

    expected = jax.jacobian(lambda p: ravel_pytree(cell.step(p, hidden, x))[0])(params)
    assert_close(immediate(params, hidden), expected, 1e-12)


@pytest.mark.parametrize("name", ["gru", "highway of depth 2", "transposed", "heads"])
def test_gradient_is_the_inverse_of_matrices(name):
    _, params, structure = traced_case(name, precision())
    assert_close(structure.gradient(structure.matrices(params), []), params, 0)


def test_half_precision_weights_keep_their_dtype():
    def step(p, h, x):
        w = jnp.asarray(p["w"], "float32")
        return jax.nn.sigmoid(jnp.asarray(p["d"], "float32")) * h + jnp.tanh(w @ h) + x

    cell = ft.cell(
        step,
        init=lambda key: {"w": jnp.ones((3, 3), "bfloat16"), "d": jnp.ones(3, "bfloat16")},
        hidden=3,
        inputs=3,
    )
    params = cell.init(jax.random.key(0))
    learner = ft.rtrl(cell)
    state, _ = learner.step(params, learner.init(jax.random.key(0), params), jnp.ones(3))
    gradient = learner.grad(params, state, jnp.ones(3))
    assert jax.tree.map(lambda a: a.dtype, gradient) == {"w": jnp.bfloat16, "d": jnp.bfloat16}


def test_structure_found_while_tracing_is_usable_outside():
    cell = CELLS["rnn"]()
    learner, params, key = ft.ok(cell, rank=2), draw(cell), jax.random.key(0)
    with jax.checking_leaks():
        state = jax.jit(learner.init)(key, params)
    state, _ = learner.step(params, state, jnp.ones(2))
    assert np.isfinite(state.hidden).all()


def test_a_wrong_factorisation_cannot_be_missed(monkeypatch):
    cell = CELLS["rnn"]()
    right = Structure.factors
    wrong = lambda self, residuals: tuple(2 * f for f in right(self, residuals))  # noqa: E731
    monkeypatch.setattr(Structure, "factors", wrong)
    with pytest.raises(RuntimeError, match="please report the cell, and use uoro or tbptt"):
        ft.structure_of(cell, draw(cell))


def test_integer_parameters_are_refused():
    cell = CELLS["rnn"]()
    params = draw(cell) | {"bias": jnp.arange(3)}
    message = r"^params\['bias'\] must be a float array; got int32; convert it to float32\.$"
    with pytest.raises(TypeError, match=message):
        ft.structure_of(cell, params)
    with pytest.raises(ValueError, match=r"^params must be shaped like .*float32\[3\].*; got .*int32\[3\]"):
        ft.rtrl(cell).init(jax.random.key(0), params)


def test_a_cell_that_changes_its_states_shape_is_refused():
    cell = CELLS["rnn"]()
    grows = cell._replace(step=lambda p, h, x: jnp.concatenate([h, h]))
    with pytest.raises(ValueError, match=r"float32\[3\]; got float32\[6\]; keep its structure, shapes"):
        ft.uoro(grows).init(jax.random.key(0), draw(cell))


def test_a_cell_that_changes_its_states_dtype_is_refused():
    cell = CELLS["rnn"]()
    half = cell._replace(step=lambda p, h, x: h.astype("bfloat16"))
    with pytest.raises(ValueError, match=r"float32\[3\]; got bfloat16\[3\]; keep"):
        ft.uoro(half).init(jax.random.key(0), draw(cell))


def test_a_state_that_does_not_fit_the_step_is_refused():
    cell = CELLS["rnn"]()
    wide = cell._replace(initial_hidden=lambda: jnp.zeros(4))
    with pytest.raises(TypeError, match=r"Raised by the cell's step, .* hidden float32\[4\] and input"):
        ft.uoro(wide).init(jax.random.key(0), draw(cell))


def test_a_state_of_mixed_dtypes_is_refused():
    def step(p, h, x):
        return {"a": p * h["a"] + x, "b": h["b"]}

    hidden = {"a": jnp.zeros(2), "b": jnp.zeros(2, "bfloat16")}
    cell = ft.cell(step, init=lambda key: jnp.ones(2), hidden=hidden, inputs=2)
    with pytest.raises(TypeError, match=r"^hidden must have leaves of one dtype"):
        ft.rtrl(cell).init(jax.random.key(0), jnp.ones(2))


@pytest.mark.parametrize("change", [{"bias": jnp.zeros(4)}, {"extra": jnp.zeros(3)}])
def test_parameters_of_another_cell_are_refused(change):
    cell = CELLS["rnn"]()
    with pytest.raises(ValueError, match=r"^params must be shaped like cell.init\(key\), .* got .*; make"):
        ft.kf_rtrl(cell).init(jax.random.key(0), draw(cell) | change)


def masked(size=6):
    """A masked weight, too large to be tracked exactly."""
    mask = np.tri(size, dtype=np.float32)

    def step(p, h, x):
        return jnp.tanh((p["w"] * mask) @ h + p["v"] @ x)

    return user_cell(step, {"w": (size, size), "v": (size, 2)}, hidden=size)


@pytest.mark.parametrize("name", ["kf_rtrl", "ok"])
def test_a_large_weight_that_does_not_factorise_is_refused(name):
    cell = masked()
    message = rf"^{name} needs every weight .* got 'w'.*'mul', .*use rtrl\(cell\) or uoro\(cell\)\.$"
    with pytest.raises(ValueError, match=message):
        ft.ok(cell, rank=2) if name == "ok" else ft.kf_rtrl(cell)


@pytest.mark.parametrize("factory", [ft.rtrl, ft.uoro])
def test_exact_learner_and_uoro_take_a_cell_that_does_not_factorise(factory):
    cell = masked()
    params, learner = draw(cell), factory(cell)
    state = learner.init(jax.random.key(0), params)
    state, _ = learner.step(params, state, jnp.ones(2))
    assert state.hidden.shape == (6,)


def test_a_cell_that_closes_over_a_traced_value_is_refused():
    def build(scale):
        cell = user_cell(lambda p, h, x: scale * jnp.tanh(p["w"] @ h) + x, {"w": (2, 2)}, hidden=2)
        return ft.rtrl(cell).init(jax.random.key(0), draw(cell)).hidden

    with pytest.raises(TypeError, match=r"^cell.step must not close over a traced value; pass it as"):
        jax.jit(build)(2.0)


class Counted:
    """A step that counts how often it is traced, and that can be neither compared nor hashed."""

    __hash__ = None

    def __init__(self):
        self.traces = 0

    def __call__(self, params, hidden, x):
        self.traces += 1
        return jnp.tanh(params["w"] @ hidden + params["v"] @ x)

    def __eq__(self, other):
        raise TypeError("not comparable")


def test_a_structure_is_found_once_whatever_is_built_on_it():
    step = Counted()
    cell = user_cell(step, {"w": (3, 3), "v": (3, 2)})
    params = draw(cell)
    jax.jit(lambda p: ft.structure_of(cell, p) and p)(params)  # nothing of a trace may be kept
    structure = ft.structure_of(cell)
    step.traces = 0
    for learner in ft.ok(cell, rank=2), ft.rtrl(cell), ft.snap(cell, order=1), ft.kf_rtrl(cell, block=2):
        learner.step(params, learner.init(jax.random.key(0), params), jnp.ones(2))
    ft.explain(cell)
    assert step.traces == 0
    assert ft.structure_of(cell, params) is structure
    assert find_sparsity(structure) is find_sparsity(structure)
    assert jacobian_rule(structure) is jacobian_rule(structure)


def test_a_structure_is_found_whatever_flags_are_set():
    cell = ft.cells.highway(hidden=3, inputs=2)
    expected = find_patterns(ft.structure_of(cell))
    with jax.debug_nans(True), jax.debug_infs(True):
        structure = ft.structure_of(cell._replace(init=lambda key: cell.init(key)))
        patterns, _ = find_patterns(structure), find_sparsity(structure)
    for a, b in zip(jax.tree.leaves(patterns.preacts), jax.tree.leaves(expected.preacts), strict=True):
        np.testing.assert_array_equal(a.places, b.places)


def test_other_shapes_another_cell_and_another_precision_are_other_structures():
    cell, like = (ft.cells.rnn(hidden=3, inputs=2) for _ in range(2))
    structure = ft.structure_of(cell)
    assert ft.structure_of(like) is not structure
    with jax.default_matmul_precision("float32"):
        assert ft.structure_of(cell) is not structure
    free = cell._replace(init=lambda key: noise(cell.init(key), 1))
    with jax.enable_x64(True):
        assert ft.structure_of(free) is not ft.structure_of(cell)
        assert ft.structure_of(cell) is not structure
    assert ft.structure_of(cell) is structure


def test_a_step_that_is_finite_nowhere_is_refused():
    cell = ft.cell(
        lambda p, h, x: jnp.sqrt(-1 - jnp.abs(p @ x)), init=lambda key: jnp.ones((3, 2)), hidden=3, inputs=2
    )
    with pytest.raises(
        ValueError, match="got infinities or NaN there and near it; give one from your data"
    ):
        ft.structure_of(cell)


def test_params_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"^params must be shaped like cell.init\(key\), .*; got float32\[2\]"
    ):
        ft.structure_of(ft.cells.rnn(hidden=3, inputs=2), jnp.ones(2))
