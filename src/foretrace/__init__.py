"""Online training of recurrent networks, with gradients that are never truncated.

Public are the names in `__all__` of this package and of its packages `cells`, `learners`,
`learners.contrib`, `optim`, `tasks`, `training`, `rl`, `rl.environments`, `runs.checkpoint`, `stream`,
`forecast`, `river`, `scale`, `plotting`, `testing` and `experiments`; everything else may change in any
release. From 0.2 on a public name is not removed before one release has warned of it with a
`DeprecationWarning` that names its successor.
"""

from typing import TYPE_CHECKING, Any

from foretrace import cells, learners, optim, scale
from foretrace._types import Cell, Learner
from foretrace.cells import cell
from foretrace.cells._adapters import from_equinox, from_flax
from foretrace.learners import (
    average,
    citation,
    contrib,
    eprop,
    explain,
    frozen,
    immediate,
    kf_rtrl,
    ktp,
    low_rank,
    ok,
    online,
    pp_prop,
    random_feedback,
    recommend,
    rflo,
    rolling_tbptt,
    rtrl,
    run_blocks,
    sketch,
    snap,
    tbptt,
    uoro,
)
from foretrace.runs.checkpoint import load, save
from foretrace.structure._find import structure_of

if TYPE_CHECKING:
    from foretrace.experiments import measure_noise
else:  # a type checker would take any name for one that this function knows

    def __getattr__(name: str) -> Any:
        """`measure_noise`: the experiments are imported when they are asked for, as that takes a while."""
        if name == "measure_noise":
            from foretrace.experiments import measure_noise

            return measure_noise
        raise AttributeError(f"module 'foretrace' has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Learner",
    "average",
    "cell",
    "cells",
    "citation",
    "contrib",
    "eprop",
    "explain",
    "from_equinox",
    "from_flax",
    "frozen",
    "immediate",
    "kf_rtrl",
    "ktp",
    "learners",
    "load",
    "low_rank",
    "measure_noise",
    "ok",
    "online",
    "optim",
    "pp_prop",
    "random_feedback",
    "recommend",
    "rflo",
    "rolling_tbptt",
    "rtrl",
    "run_blocks",
    "save",
    "scale",
    "sketch",
    "snap",
    "structure_of",
    "tbptt",
    "uoro",
]
