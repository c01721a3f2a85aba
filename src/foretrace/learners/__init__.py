"""Learners: how credit at time t reaches the parameters used at all times <= t."""

from foretrace.learners.frozen import frozen
from foretrace.learners.immediate import immediate
from foretrace.learners.kf_rtrl import KFInfo, kf_rtrl
from foretrace.learners.ok import OKInfo, ok
from foretrace.learners.rtrl import RTRLInfo, rtrl
from foretrace.learners.tbptt import TBPTTInfo, tbptt
from foretrace.learners.uoro import UOROInfo, uoro

__all__ = [
    "KFInfo",
    "OKInfo",
    "RTRLInfo",
    "TBPTTInfo",
    "UOROInfo",
    "frozen",
    "immediate",
    "kf_rtrl",
    "ok",
    "rtrl",
    "tbptt",
    "uoro",
]
