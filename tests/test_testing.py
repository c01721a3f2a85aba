"""The conformance suite passes for all that is public, and fails for what it is meant to find."""

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from foretrace.testing._conformance import check_cell, check_learner


@pytest.fixture(autouse=True)
def quick_compilation():
    """What is compiled here runs for a few steps."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def small(name):
    if name == "stack":
        return ft.cells.stack([ft.cells.rnn(hidden=2, inputs=2), ft.cells.rnn(hidden=2, inputs=2)])
    if name == "with_synthesizer":
        return ft.contrib.with_synthesizer(small("rnn"))
    return getattr(ft.cells, name)(hidden=2, inputs=2)


CELLS = (*ft.cells.CELLS, "stack")
CELLS_EXCLUDED = {
    "CELLS": "the others by their names",
    "cell": "wraps a function of a user's own",
    "LSTMHidden": "the state of lstm",
    "StackHidden": "the state of stack",
}
# Factory, cell, claims.
LEARNERS = {
    "eprop": (ft.eprop, "lstm", {}),
    "frozen": (ft.frozen, "rnn", {}),
    "immediate": (ft.immediate, "rnn", {}),
    "kf_rtrl": (ft.kf_rtrl, "highway", {"unbiased": True}),
    "ktp": (lambda cell: ft.ktp(cell, rank=2), "highway", {"unbiased": True}),
    "low_rank": (lambda cell: ft.low_rank(cell, rank=1, block=2), "gru", {"unbiased": True}),
    "ok": (lambda cell: ft.ok(cell, rank=1, block=2), "highway", {"unbiased": True}),
    "pp_prop": (lambda cell: ft.pp_prop(cell, span=3), "lstm", {}),
    "rflo": (ft.rflo, "highway", {}),
    "rolling_tbptt": (lambda cell: ft.rolling_tbptt(cell, window=2), "rnn", {}),
    "rtrl": (ft.rtrl, "elstm", {"exact": True}),
    "sketch": (lambda cell: ft.sketch(cell, rank=1), "rnn", {}),
    "snap": (lambda cell: ft.snap(cell, order=1), "elstm", {"exact": True}),
    "tbptt": (lambda cell: ft.tbptt(cell, window=2), "rnn", {}),
    "uoro": (ft.uoro, "rnn", {"unbiased": True}),
}
LEARNERS_EXCLUDED = {
    "random_feedback": "a readout",
    **dict.fromkeys(("average", "online", "run_blocks"), "a loop around learners"),
    **dict.fromkeys(("analyse", "citation", "explain", "parse", "recommend"), "tells of learners"),
}
CONTRIB = {
    "artbp": (lambda cell: ft.contrib.artbp(cell, length=3), "rnn", {"unbiased": True}),
    "dni": (ft.contrib.dni, "with_synthesizer", {}),
    # Without learning, since what the kernel has learned outlives a restart, as weights do.
    "kernl": (lambda cell: ft.contrib.kernl(cell, beta_rate=0.0, gamma_rate=0.0), "leaky", {}),
    "pre_uoro": (ft.contrib.pre_uoro, "rnn", {"unbiased": True}),
    "r_kf_rtrl": (ft.contrib.r_kf_rtrl, "highway", {"unbiased": True}),
}
CONTRIB_EXCLUDED = {"with_synthesizer": "makes the cells of dni"}


def test_everything_public_is_in_the_suite_or_excluded_with_a_reason():
    assert sorted((*CELLS, *CELLS_EXCLUDED)) == sorted(ft.cells.__all__)
    for module, names in (
        (ft.learners, (*LEARNERS, *LEARNERS_EXCLUDED)),
        (ft.contrib, (*CONTRIB, *CONTRIB_EXCLUDED)),
    ):
        assert {*names} == {name for name in module.__all__ if name.islower()}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_conforms(name):
    check_cell(small(name))


@pytest.mark.parametrize("name", LEARNERS | CONTRIB)
def test_every_learner_conforms(name):
    make, cell, claims = (LEARNERS | CONTRIB)[name]
    check_learner(make, small(cell), **claims)


def broken(change):
    """RTRL with one of its functions changed."""
    return lambda cell: change(ft.rtrl(cell, block=2))


def halved(learner):
    def half(gradient):
        return lambda *args: jax.tree.map(lambda a: a / 2, gradient(*args))

    return learner._replace(grad=half(learner.grad), sweep=half(learner.sweep))


@pytest.mark.parametrize(
    ("make", "claims", "message"),
    [
        (broken(halved), {"exact": True}, "must be that of the unrolled loss"),
        (broken(halved), {"unbiased": True}, "the mean gradient must be exact"),
        (lambda cell: ft.tbptt(cell, window=2), {"exact": True}, "must be that of the unrolled loss"),
        (broken(lambda x: x._replace(reset=lambda state, restart: state)), {}, "after a restart"),
        (broken(lambda x: x._replace(sweep=lambda p, s, c: p)), {}, "sweep must sum"),
    ],
)
def test_what_a_learner_does_not_hold_is_found(make, claims, message):
    with pytest.raises(AssertionError, match=message):
        check_learner(make, small("rnn"), **claims)


def test_a_step_that_is_not_pure_is_found_and_a_derivative_of_its_own_is_taken():
    @jax.custom_jvp
    def bent(z):
        return jnp.tanh(z)

    bent.defjvp(lambda primals, tangents: (bent(*primals), 2 * tangents[0]))
    fair = ft.cells.rnn(hidden=2, inputs=2)
    check_cell(
        fair._replace(step=lambda p, h, x: bent(fair.step(p, h, x)))
    )  # its derivative is what it says
    counter = iter(range(100))
    moody = fair._replace(step=lambda p, h, x: fair.step(p, h, x) + next(counter))
    with pytest.raises(AssertionError, match="step must be"):
        check_cell(moody)
