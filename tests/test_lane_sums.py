"""Sums over lanes against NumPy's, for every way in which lanes are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners._engine._lane_sums import read_lanes, sum_leading
from foretrace.learners._engine._sparse import SparseRule
from foretrace.learners._rtrl import _DenseRule
from oracles import CELLS, draw, precision


@pytest.mark.parametrize("lanes", [1, 2, 8, 9, 24, 63, 64, 65, 130])
def test_the_sum_over_lanes_is_numpys(x64, lanes):
    a = jax.random.normal(jax.random.key(lanes), (lanes, 3, 2), precision())
    np.testing.assert_allclose(jax.jit(sum_leading)(a), np.sum(np.asarray(a), axis=0), rtol=1e-13)


@pytest.mark.parametrize("rule", [_DenseRule, lambda structure: SparseRule(structure, steps=1)])
@pytest.mark.parametrize("lanes", [1, 5, 8, 70])
def test_the_gradient_of_all_lanes_is_the_sum_of_that_of_each(x64, rule, lanes):
    cell = CELLS["gain"]()  # one group, and leaves beside it
    rule = rule(ft.structure_of(cell, draw(cell)))
    keys = iter(jax.random.split(jax.random.key(1), 9))

    def random(a):
        return jax.random.normal(next(keys), (lanes, *a.shape), precision())

    past, credit = jax.tree.map(random, (rule.empty(), jnp.zeros(3)))
    total = jax.jit(lambda past, credit: read_lanes(rule, past, credit))(past, credit)
    each = [rule.read(*jax.tree.map(lambda a, i=i: a[i], (past, credit))) for i in range(lanes)]
    expected = jax.tree.map(lambda *parts: np.sum(np.stack(parts), axis=0), *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), total, expected)
