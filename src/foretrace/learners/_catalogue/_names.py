"""Learners by name: one grammar, NAME[:NUMBER][/BLOCK][+1][*COPIES][@bfloat16], for all commands."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any, NamedTuple

from foretrace._checks import UserError, check_kind, check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._spec import CellSizes, Operations, Spec
from foretrace.learners._engine import check_age
from foretrace.learners._engine._rounded import check_past_dtype
from foretrace.learners._online import average


def _collect() -> dict[str, Spec]:
    """The `SPEC` of every file in the folder of learners, exact and unbiased ones first."""
    folder = str(Path(__file__).parents[1])
    names = (module.name for module in pkgutil.iter_modules([folder]) if not module.ispkg)
    modules = (importlib.import_module(f"foretrace.learners.{name}") for name in names)
    specs = [module.SPEC for module in modules if hasattr(module, "SPEC")]
    specs.sort(key=lambda spec: (not spec.exact, not spec.unbiased, spec.order))
    return {spec.name: spec for spec in specs}


class Choice(NamedTuple):
    """A learner with its sizes, such as `ok:8/16*4`; `str()` gives the name back.

    Attributes:
        spec: of the learner.
        number: rank, order or window; 1 for a learner that has none.
        block: steps per block, or None where the name leaves it open.
        age: blocks, 0 or 1, that steps wait before they join the past.
        copies: independent copies whose gradients are averaged.
        past_dtype: "bfloat16", or None for the precision of the parameters.
    """

    spec: Spec
    number: int
    block: int | None = None
    age: int = 0
    copies: int = 1
    past_dtype: str | None = None

    def build(self, cell: Cell, block: int | None = None) -> Learner:
        """The learner on a cell.

        Args:
            cell: the dynamics.
            block: steps per block where the name leaves it open and the learner takes one; by default those
                that it should have at least.
        """
        options: dict[str, Any] = {self.spec.number.keyword: self.number} if self.spec.number else {}
        if self.spec.takes_block:
            options["block"] = self.block or block or self.spec.block
        if self.age:
            options["age"] = self.age
        if self.past_dtype:
            options["past_dtype"] = self.past_dtype
        learner = self.spec.factory(cell, **options)
        return learner if self.copies == 1 else average(learner, self.copies)

    def operations(self, sizes: CellSizes, block: int) -> Operations:
        """Floating-point operations of one lane's step, by kind, at a block of so many steps."""
        counts = self.spec.operations(sizes, self.number, block)
        if not self.age:
            return counts
        # A way back that is a block longer, and a block more to carry what joins the past through.
        longer = {"backward": 4 * sizes.weights * block, "jacobians": counts["jacobians"]}
        return counts | {kind: counts[kind] + more for kind, more in longer.items()}

    @property
    def update_every(self) -> int:
        """Steps between two updates, as the learner is always used: the window of TBPTT, 1 for others."""
        return self.number if self.spec.one_update else 1

    def __str__(self) -> str:
        number = f":{self.number}" if self.spec.number else ""
        block = f"/{self.block}" if self.block else ""
        age = f"+{self.age}" if self.age else ""
        copies = f"*{self.copies}" if self.copies > 1 else ""
        past = f"@{self.past_dtype}" if self.past_dtype else ""
        return f"{self.spec.name}{number}{block}{age}{copies}{past}"


def parse(text: str) -> Choice:
    """Reads a learner's name: NAME, then `:` and its number, `/` and its block, `*` and copies to average.

    `+1` after the block is the `age`, and `@bfloat16` at the end the `past_dtype`.

    Args:
        text: such as `ok`, `ok:8`, `ok:8/16`, `ok:8/16+1`, `kf_rtrl*8`, `tbptt:25`, `rtrl/16@bfloat16`.

    Raises:
        ValueError: there is no such learner, or it has no such size.

    Example:
        >>> import foretrace as ft
        >>> str(ft.learners.parse("ok/16"))
        'ok:8/16'
    """
    check_kind("learner", text, str, "write its name, such as ok:8")
    name = re.split(r"[:/+*@]", text, maxsplit=1)[0]
    if name not in SPECS:
        raise UserError(f"learner must be one of {', '.join(SPECS)}; got {text!r}; choose one of them.")
    spec = SPECS[name]
    sizes = re.fullmatch(r"\w+(?::(-?\d+))?(?:/(-?\d+))?(?:\+(-?\d+))?(?:\*(-?\d+))?(?:@(\w+))?", text)
    example = (
        name + (f":{spec.number.default}" if spec.number else "") + ("/16" if spec.takes_block else "")
    )
    if not sizes:
        raise UserError(
            f"learner must be NAME:NUMBER/BLOCK+AGE*COPIES with ints, each part but the name optional, "
            f"then @bfloat16 or nothing; got {text!r}; write {example}."
        )
    number, block, age, copies = (None if size is None else int(size) for size in sizes.groups()[:4])
    past_dtype = sizes[5]
    if number is not None and not spec.number:
        raise UserError(f"{name} has no number; got {text!r}; write {example}.")
    if block is not None and not spec.takes_block:
        raise UserError(f"{name} has no block; got {text!r}; write {example}.")
    if block is not None:
        check_positive_int("block", block, "1 is the papers' algorithm")
    if age is not None and not spec.takes_age:
        raise UserError(f"{name} has no age; got {text!r}; write {example}.")
    if age is not None:
        check_age(age)
    if past_dtype and not spec.takes_past_dtype:
        raise UserError(f"{name} has no past_dtype; got {text!r}; write {example}.")
    check_past_dtype(past_dtype)
    if copies is not None:
        check_positive_int("copies", copies, "1 is the learner itself")
        if copies > 1 and (spec.exact or not spec.unbiased):
            why = "exact" if spec.exact else "biased"
            raise UserError(f"copies must be 1 for {name}, which is {why}; got {copies}; leave them out.")
    if number is None:
        number = spec.number.default if spec.number else 1
    return Choice(spec, number, block, age or 0, copies or 1, past_dtype)


SPECS: dict[str, Spec] = _collect()
