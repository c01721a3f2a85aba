"""Does it hold what it claims? The tests that every cell and learner passes, for those of your own."""

from foretrace.testing._conformance import check_cell, check_learner
from foretrace.testing._oracles import assert_close, dot, draw, exact, exact_lanes, noise, stream

__all__ = [
    "assert_close",
    "check_cell",
    "check_learner",
    "dot",
    "draw",
    "exact",
    "exact_lanes",
    "noise",
    "stream",
]
