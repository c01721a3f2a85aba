"""Learners: how credit at time t reaches the parameters used at all times <= t."""

from foretrace.learners._eprop import EPropInfo, eprop, random_feedback
from foretrace.learners._frozen import frozen
from foretrace.learners._immediate import immediate
from foretrace.learners._kf_rtrl import KFInfo, kf_rtrl
from foretrace.learners._ktp import KTPInfo, ktp
from foretrace.learners._ok import OKInfo, ok
from foretrace.learners._rflo import RFLOInfo, rflo
from foretrace.learners._rtrl import RTRLInfo, rtrl
from foretrace.learners._sketch import SketchInfo, sketch
from foretrace.learners._snap import SnApInfo, snap
from foretrace.learners._tbptt import TBPTTInfo, tbptt
from foretrace.learners._uoro import UOROInfo, uoro

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
