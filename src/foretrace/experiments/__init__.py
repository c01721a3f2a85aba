"""The papers' claims as data: what they say, how to measure it here, and whether it holds."""

from foretrace.experiments import (
    _balance,
    _curriculum,
    _memory,
    _noise,
    _overview,
    _ptb,
    _strings,
    _variance,
)
from foretrace.experiments._experiment import SCALES, Experiment, Finding, Reported
from foretrace.experiments._page import page
from foretrace.experiments._record import draw_record, load, perform, record_path, save
from foretrace.runs._resumable import remove

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        _curriculum.COPY_CURRICULUM,
        _ptb.PTB,
        _ptb.PTB_AUTHORS,
        _balance.BALANCE,
        _strings.ANBN,
        _strings.BRACKETS,
        _noise.NOISE_TIME,
        _noise.NOISE_SIZE,
        _variance.VARIANCE,
        _memory.MEMORY,
        _overview.LEARNERS,
    )
}

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Experiment",
    "Finding",
    "Reported",
    "draw_record",
    "load",
    "page",
    "perform",
    "record_path",
    "remove",
    "save",
]
