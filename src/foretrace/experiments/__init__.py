"""The papers' claims as data: what they say, how to measure it here, and whether it holds."""

from foretrace.experiments import balance, curriculum, memory, noise, overview, ptb, strings, variance
from foretrace.experiments._experiment import SCALES, Chart, Experiment, Finding, Line, Reported
from foretrace.experiments._page import page
from foretrace.experiments._parts import forget
from foretrace.experiments._picture import draw_record
from foretrace.experiments._record import load, perform, record_path, save

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        curriculum.COPY_CURRICULUM,
        ptb.PTB,
        ptb.PTB_AUTHORS,
        balance.BALANCE,
        strings.ANBN,
        strings.BRACKETS,
        noise.NOISE_TIME,
        noise.NOISE_SIZE,
        variance.VARIANCE,
        memory.MEMORY,
        overview.LEARNERS,
    )
}

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Chart",
    "Experiment",
    "Finding",
    "Line",
    "Reported",
    "draw_record",
    "forget",
    "load",
    "page",
    "perform",
    "record_path",
    "save",
]
