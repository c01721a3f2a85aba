"""What is the influence? Learners: how credit at time t reaches the parameters used at all times <= t.

Each paper is one file, private and named like its learner. It ends in a `SPEC`, which is found where the
file lies: names, tables, costs and commands follow from it.
"""

from foretrace.learners._catalogue._citations import citation
from foretrace.learners._catalogue._costs import Cost, Explanation, analyse, explain
from foretrace.learners._catalogue._names import SPECS, Choice, parse
from foretrace.learners._catalogue._recommend import Recommendation, recommend
from foretrace.learners._catalogue._spec import CellSizes, Number, Spec
from foretrace.learners._engine._past import NoInfo
from foretrace.learners._eprop import eprop, random_feedback
from foretrace.learners._frozen import frozen
from foretrace.learners._immediate import immediate
from foretrace.learners._kf_rtrl import KFInfo, kf_rtrl
from foretrace.learners._ktp import KTPInfo, ktp
from foretrace.learners._low_rank import LowRankInfo, low_rank
from foretrace.learners._ok import OKInfo, ok
from foretrace.learners._online import average, online, run_blocks
from foretrace.learners._pp_prop import pp_prop
from foretrace.learners._rflo import rflo
from foretrace.learners._rolling_tbptt import rolling_tbptt
from foretrace.learners._rtrl import rtrl
from foretrace.learners._sketch import SketchInfo, sketch
from foretrace.learners._snap import snap
from foretrace.learners._tbptt import tbptt
from foretrace.learners._uoro import UOROInfo, uoro

__all__ = [
    "SPECS",
    "CellSizes",
    "Choice",
    "Cost",
    "Explanation",
    "KFInfo",
    "KTPInfo",
    "LowRankInfo",
    "NoInfo",
    "Number",
    "OKInfo",
    "Recommendation",
    "SketchInfo",
    "Spec",
    "UOROInfo",
    "analyse",
    "average",
    "citation",
    "eprop",
    "explain",
    "frozen",
    "immediate",
    "kf_rtrl",
    "ktp",
    "low_rank",
    "ok",
    "online",
    "parse",
    "pp_prop",
    "random_feedback",
    "recommend",
    "rflo",
    "rolling_tbptt",
    "rtrl",
    "run_blocks",
    "sketch",
    "snap",
    "tbptt",
    "uoro",
]
