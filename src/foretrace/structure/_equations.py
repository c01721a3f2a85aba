"""One equation of a cell's program: what the name of its primitive tells, and its outputs' values."""

from dataclasses import dataclass
from typing import Any

# Equations that keep every entry, up to its place and dtype.
LAYOUT = {"transpose", "reshape", "squeeze", "convert_element_type", "broadcast_in_dim", "copy"}
SUMS = {"add", "add_any", "sub", "neg", "reshape", "squeeze", "broadcast_in_dim"}
_MOVES = {"slice", "split", "concatenate", "pad", "rev", "select_n", "mul", "div"}
PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}
ELEMENTWISE = LAYOUT | SUMS | _MOVES
# Linear equations whose non-zeros stay where they are when their known operands change.
FIXED_PLACES = ELEMENTWISE | {"dot_general", "reduce_sum", "cumsum", "complex", "real", "imag", "conj"}
FIXED_PLACES |= {"gather", "dynamic_slice", "dynamic_update_slice", "conv_general_dilated"}


@dataclass(frozen=True, eq=False)
class Equation:
    primitive: Any
    params: dict
    inputs: tuple
    outputs: tuple


def keeps_size(e: Equation) -> bool:
    """Whether every operand has as many entries as the output."""
    return all(v.aval.size == e.outputs[0].aval.size for v in e.inputs)


def evaluate(e: Any, values: list) -> list:
    """The outputs of an equation, of a jaxpr's too, from the values of its inputs."""
    out = e.primitive.bind(*values, **e.primitive.get_bind_params(e.params))
    return list(out) if e.primitive.multiple_results else [out]
