"""The machinery that learners share: window, block, past. Each paper's file gives only its `PastRule`."""

from collections.abc import Callable
from typing import Any

from foretrace._checks import UserError
from foretrace._types import Cell, Learner
from foretrace.learners._engine._immediate import ImmediateEngine, sweep_of_steps
from foretrace.learners._engine._past import PastRule
from foretrace.learners._engine._rounded import check_past_dtype, rounded
from foretrace.learners._engine._window import WindowEngine
from foretrace.structure._find import structure_of
from foretrace.structure._structure import Structure


def check_age(age: Any) -> None:
    """Raises ValueError unless it is 0 or 1."""
    if isinstance(age, bool) or age not in (0, 1):
        raise UserError(f"age must be 0 or 1, in blocks; got {age!r}; 0 is the papers' algorithm.")


def learner_of(
    cell: Cell,
    make_rule: Callable[[Structure], PastRule],
    block: int,
    *,
    age: int = 0,
    one_update: bool = False,
    past_dtype: Any = None,
) -> Learner:
    """A learner from a method's rule for the past.

    Args:
        cell: the dynamics.
        make_rule: the method, given the cell's structure.
        block: steps per block.
        age: whole blocks, 0 or 1, that steps wait in the window before they join the past.
        one_update: whether weights change between blocks alone.
        past_dtype: bfloat16, or None for the structure's own dtype.

    Raises:
        ValueError: `age` or `past_dtype` is another one.
    """
    check_age(age)
    is_rounded = check_past_dtype(past_dtype)
    rule = make_rule(structure_of(cell))
    rule = rounded(rule) if is_rounded else rule
    if block == 1 and rule.needs_no_window and not age:
        engine = ImmediateEngine(cell, rule)
        sweep = sweep_of_steps(engine.grad)
        return Learner(engine.init, engine.advance, engine.end_block, engine.grad, sweep, engine.reset)
    engine = WindowEngine(cell, rule, block, age=age, one_update=one_update)
    return Learner(
        engine.init, engine.advance, engine.end_block, engine.grad, engine.sweep, engine.reset, block
    )
