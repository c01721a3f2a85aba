"""Online training of recurrent networks, with gradients that are never truncated."""

from foretrace import cells, learners
from foretrace._types import Cell, Learner, Phases
from foretrace.cells import cell
from foretrace.cells._adapters import from_equinox, from_flax
from foretrace.learners import (
    contrib,
    eprop,
    frozen,
    immediate,
    kf_rtrl,
    ktp,
    ok,
    random_feedback,
    rflo,
    rtrl,
    sketch,
    snap,
    tbptt,
    uoro,
)
from foretrace.learners._costs import explain
from foretrace.learners._online import average, online
from foretrace.learners._recommend import recommend
from foretrace.runs.checkpoint import load, save
from foretrace.structure._find import structure_of

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Learner",
    "Phases",
    "average",
    "cell",
    "cells",
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
    "ok",
    "online",
    "random_feedback",
    "recommend",
    "rflo",
    "rtrl",
    "save",
    "sketch",
    "snap",
    "structure_of",
    "tbptt",
    "uoro",
]
