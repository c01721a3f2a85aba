"""More of the field: learners from papers, kept to the same protocol and tests as those of `foretrace`.

Each file is one paper's. They are for comparisons more than for use: docs/contrib.md says what each is and
when to take it. Random sparse transport (Shalev-Merin, arXiv 2603.15195) is left out: what is published of
it does not tell whether its random paths are drawn once or anew at every step.
"""

from foretrace.learners.contrib._artbp import ARTBPInfo, artbp
from foretrace.learners.contrib._dni import dni, with_synthesizer
from foretrace.learners.contrib._kernl import KeRNLInfo, kernl
from foretrace.learners.contrib._pre_uoro import PreUOROInfo, pre_uoro
from foretrace.learners.contrib._r_kf_rtrl import RKFInfo, r_kf_rtrl

__all__ = [
    "ARTBPInfo",
    "KeRNLInfo",
    "PreUOROInfo",
    "RKFInfo",
    "artbp",
    "dni",
    "kernl",
    "pre_uoro",
    "r_kf_rtrl",
    "with_synthesizer",
]
