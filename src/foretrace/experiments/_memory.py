"""Bytes and time per step against the length of the dependency."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from foretrace import tasks
from foretrace._xla import jit_unoptimised
from foretrace.experiments._experiment import Experiment, Finding, Reported
from foretrace.experiments._fixed_networks import highway
from foretrace.learners import parse
from foretrace.plotting import Chart, Line
from foretrace.training import trainer

_BPTT = "bptt, an update per sequence"
_ONLINE = "bptt, a gradient per step"


class _Program(NamedTuple):
    run: Any  # one compiled chunk, carry -> carry
    start: Any  # the first carry
    steps: int
    bytes: int  # of the training's state and of all buffers of the chunk


def _program(settings: dict[str, Any], label: str, length: int) -> _Program:
    """Training with a learner, compiled; `length` is the window of BPTT."""
    cell, task = highway(settings["units"]), tasks.copy()
    window = length if label in (_BPTT, _ONLINE) else 1
    learner = parse(label if window == 1 else f"tbptt:{length}").build(cell)
    every = window if label == _BPTT else 1
    whole = max(window, learner.block)
    training = trainer(
        cell,
        learner,
        task,
        optax.adam(1e-3),
        lanes=settings["lanes"],
        steps=-(-settings["steps"] // whole) * whole,
        update_every=every,
        clip=1.0,
    )
    start = jit_unoptimised(training.init)(jax.random.key(0))
    compiled = jax.jit(lambda carry: training.chunk(carry)[0], donate_argnums=0).lower(start).compile()
    used: Any = compiled.memory_analysis()
    reserved = used.argument_size_in_bytes + used.temp_size_in_bytes
    return _Program(compiled, start, training.steps, reserved)


def _seconds(program: _Program, length: int, repeats: int) -> float:
    """Least time of a step over some chunks, the copy task being `length` steps long; after a warm-up."""
    streams = program.start.streams
    stage = streams.task._replace(curriculum=jnp.int32((length - 2) // 2))
    # Copies: a donated array is gone, and two may not share a buffer.
    carry = jax.tree.map(jnp.copy, program.start._replace(streams=streams._replace(task=stage)))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        carry = jax.block_until_ready(program.run(carry))
        seconds.append((time.perf_counter() - start) / program.steps)
    return min(seconds[1:])


def _run(settings, say, part):
    result: dict[str, Any] = {"lengths": settings["lengths"], "bytes": {}, "us": {}}
    for label in (*settings["learners"], _BPTT, _ONLINE):
        used, us = part(label, partial(_measure, settings, label))
        result["bytes"][label], result["us"][label] = used, us
        megabytes, least = f"{used[0] / 1e6:.3g} to {used[-1] / 1e6:.3g} MB", np.min(us, axis=0)
        say(f"{label}: {megabytes}, {least[0]:.3g} to {least[-1]:.3g} microseconds per step")
    return result


def _measure(settings, label):
    """Bytes at every length, and microseconds per step, (seeds, lengths)."""
    lengths = settings["lengths"]
    if label in (_BPTT, _ONLINE):
        programs = [_program(settings, label, length) for length in lengths]
    else:  # an online learner is the same program for every length
        programs = [_program(settings, label, lengths[0])] * len(lengths)
    # In turns, so that other load of the machine falls on all lengths.
    turn = list(zip(programs, lengths, strict=True))
    us = [[1e6 * _seconds(*each, 1) for each in turn] for _ in range(settings["seeds"])]
    return [program.bytes for program in programs], us


def _check(result):
    lengths, used = result["lengths"], result["bytes"]
    us = {label: np.min(values, axis=0) for label, values in result["us"].items()}
    online = [label for label in used if label not in (_BPTT, _ONLINE)]
    whole = f"from {lengths[0]} to {lengths[-1]} steps"
    ratio = {label: used[label][-1] / used[label][0] for label in used}
    slower = {label: us[label][-1] / us[label][0] for label in used}
    long = lengths[-1] / lengths[0]
    return [
        Finding(
            f"memory of the online learners is the same {whole}",
            all(ratio[label] == 1 for label in online),
            ", ".join(f"{label} {used[label][-1] / 1e6:.3g} MB" for label in online),
        ),
        Finding(
            f"a step of the online learners takes the same time {whole} (less than twice)",
            all(slower[label] < 2 for label in online),
            ", ".join(f"{label} x {slower[label]:.2f}" for label in online),
        ),
        Finding(
            f"memory of BPTT grows {whole}",
            min(ratio[_BPTT], ratio[_ONLINE]) > long / 10,
            f"x {ratio[_BPTT]:.0f}, from {used[_BPTT][0] / 1e6:.3g} to {used[_BPTT][-1] / 1e6:.3g} MB",
        ),
        Finding(
            f"time per step of BPTT with a gradient at every step grows {whole}",
            bool(slower[_ONLINE] > long / 10),
            f"x {slower[_ONLINE]:.0f}, from {us[_ONLINE][0]:.0f} to {us[_ONLINE][-1]:,.0f} microseconds",
        ),
    ]


def _table(result):
    lengths = result["lengths"]
    rows = [
        ("learner", *(f"{n} steps: MB" for n in lengths), *(f"{n} steps: us per step" for n in lengths))
    ]
    for label, used in result["bytes"].items():
        us = np.min(result["us"][label], axis=0)
        rows.append((label, *(f"{value / 1e6:.3g}" for value in used), *(f"{value:,.0f}" for value in us)))
    return rows


def _charts(result):
    lengths = result["lengths"]
    mega = [Line(label, lengths, [np.array(used) / 1e6]) for label, used in result["bytes"].items()]
    times = [Line(label, lengths, us) for label, us in result["us"].items()]
    return [
        Chart("Memory of training, MB", "length of the dependency, steps", mega),
        Chart("Time per step, microseconds", "length of the dependency, steps", times),
    ]


MEMORY = Experiment(
    name="memory",
    claim="Memory and time per step of the online learners do not depend on how far back the past reaches; "
    "those of back-propagation through time grow with it.",
    protocol="The copy task at fixed lengths; BPTT's window holds a whole sequence. Bytes are those that "
    "the compiler reserves for the training state and all buffers of a compiled run; time per step is the "
    "least of several runs, which stand in for seeds.",
    source="The abstracts of Mujika et al. 2018, Benzing et al. 2019, Tallec & Ollivier 2018.",
    reported=(
        Reported("memory of KF-RTRL, OK", "O(n^2), O(r n^2); no T", "Benzing et al., ICML 2019", True),
        Reported("memory of UORO", "of a forward pass; no T", "Tallec & Ollivier, ICLR 2018", True),
    ),
    deviations=("Measured on our implementation, where the papers count operations.",),
    scales={
        "quick": {
            "seeds": 3, "units": 32, "lanes": 4, "steps": 512, "lengths": (10, 100, 1000),
            "learners": ("ok:8", "kf_rtrl", "uoro"),
        },
        "day": {
            "seeds": 3, "units": 32, "lanes": 16, "steps": 1024,
            "lengths": (10, 32, 100, 316, 1000, 3162),
            "learners": ("ok:8", "ok:8/16", "kf_rtrl", "uoro"),
        },
        "full": {
            "seeds": 5, "units": 128, "lanes": 16, "steps": 4096,
            "lengths": (10, 32, 100, 316, 1000, 3162, 10_000),
            "learners": ("ok:16", "ok:16/16", "kf_rtrl", "uoro"),
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)  # fmt: skip
