"""Does a claim hold? Each as data, with measurement and verdict; the settings in which steps are timed."""

from foretrace.experiments import (
    _balance,
    _block,
    _conditioning,
    _curriculum,
    _dense_error,
    _encoder,
    _low_rank,
    _memory,
    _memory_chain,
    _noise,
    _noise_return,
    _overview,
    _ptb,
    _repeat,
    _size,
    _strings,
    _t_maze,
    _variance,
)
from foretrace.experiments._bench import (
    SETTINGS,
    Setting,
    choose_device,
    compare_records,
    environment,
    measure_setting,
    read_bench,
    table_of,
)
from foretrace.experiments._bench_agents import AGENT_SETTINGS, AgentSetting, measure_agents
from foretrace.experiments._experiment import SCALES, Experiment, Finding, Reported
from foretrace.experiments._fixed_networks import streams_of
from foretrace.experiments._measure_noise import measure_noise
from foretrace.experiments._noise_table import Noise, NoiseTable
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
        _low_rank.LOW_RANK,
        _size.SIZE,
        _block.BLOCK,
        _memory.MEMORY,
        _overview.LEARNERS,
        _t_maze.T_MAZE,
        _memory_chain.MEMORY_CHAIN,
        _conditioning.TRACE_CONDITIONING,
        _repeat.REPEAT,
        _encoder.ENCODER,
        _dense_error.DENSE_ERROR,
        _noise_return.NOISE_RETURN,
    )
}

__all__ = [
    "AGENT_SETTINGS",
    "EXPERIMENTS",
    "SCALES",
    "SETTINGS",
    "AgentSetting",
    "Experiment",
    "Finding",
    "Noise",
    "NoiseTable",
    "Reported",
    "Setting",
    "choose_device",
    "compare_records",
    "draw_record",
    "environment",
    "load",
    "measure_agents",
    "measure_noise",
    "measure_setting",
    "page",
    "perform",
    "read_bench",
    "record_path",
    "remove",
    "save",
    "streams_of",
    "table_of",
]
