"""Online training of recurrent networks, with gradients that are never truncated."""

from foretrace import cells, contrib, learners
from foretrace._types import Cell, Learner, Phases
from foretrace.adapters import from_equinox, from_flax
from foretrace.cells import cell
from foretrace.checkpoint import load, save
from foretrace.learners import (
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
from foretrace.measure import explain
from foretrace.online import average, online
from foretrace.recommend import recommend

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
    "tbptt",
    "uoro",
]
