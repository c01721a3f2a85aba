"""Learners: how credit at time t reaches the parameters used at all times <= t."""

from foretrace.learners.eprop import EPropInfo, eprop, random_feedback
from foretrace.learners.frozen import frozen
from foretrace.learners.immediate import immediate
from foretrace.learners.kf_rtrl import KFInfo, kf_rtrl
from foretrace.learners.ktp import KTPInfo, ktp
from foretrace.learners.ok import OKInfo, ok
from foretrace.learners.rflo import RFLOInfo, rflo
from foretrace.learners.rtrl import RTRLInfo, rtrl
from foretrace.learners.sketch import SketchInfo, sketch
from foretrace.learners.snap import SnApInfo, snap
from foretrace.learners.tbptt import TBPTTInfo, tbptt
from foretrace.learners.uoro import UOROInfo, uoro

__all__ = [
    "EPropInfo",
    "KFInfo",
    "KTPInfo",
    "OKInfo",
    "RFLOInfo",
    "RTRLInfo",
    "SketchInfo",
    "SnApInfo",
    "TBPTTInfo",
    "UOROInfo",
    "eprop",
    "frozen",
    "immediate",
    "kf_rtrl",
    "ktp",
    "ok",
    "random_feedback",
    "rflo",
    "rtrl",
    "sketch",
    "snap",
    "tbptt",
    "uoro",
]
