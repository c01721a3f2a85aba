"""The copy task with its curriculum: how far each learner gets with the same data."""

from functools import partial
from typing import Any

import numpy as np
import optax

from foretrace import tasks
from foretrace.experiments._curves import curves
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.experiments._fixed_networks import highway
from foretrace.learners import parse
from foretrace.plotting import Chart, Line
from foretrace.training import chunks_for, trainer

_LOGS = "logs in the OK authors' repository, five runs"
_AUTHORS = {10_000: 4.0, 20_000: 7.6, 50_000: 11.8, 100_000: 16.0, 500_000: 28.0, 2_000_000: 41.8}


def _run(settings, say, part):
    result: dict[str, Any] = {}
    for label, length in settings["learners"].items():
        result[label] = curve = part.long(label, partial(_learn, settings, label, length))
        say(f"{label}: T = {mean_spread(_reached(curve))} after {curve['steps'][-1]:,} steps")
    return result


def _learn(settings, label, length, progress):
    """T of every seed while one learner learns for so many steps."""
    cell = highway(settings["units"])
    learner = parse(label).build(cell)
    every = parse(label).update_every
    rate = "tbptt_rate" if parse(label).spec.name == "tbptt" else "rate"
    steps, chunks = chunks_for(length, learner.block, max(settings["learners"].values()) // 100)
    training = trainer(
        cell,
        learner,
        tasks.copy(),
        optax.adam(settings[rate]),
        lanes=settings["lanes"],
        steps=steps,
        update_every=every,
        clip=1.0,
    )
    curve = curves(training, settings["seeds"], chunks, progress)
    return {"steps": curve.steps, "T": curve.values["T"], "bits": curve.values["bits"][:, -1]}


def _reached(curve, step=None):
    """T of every seed at a time step, the last one by default."""
    steps = np.array(curve["steps"])
    # Chunks of different learners end at slightly different steps.
    index = len(steps) - 1 if step is None else np.argmin(abs(steps - step))
    return np.array(curve["T"], float)[:, index]


def _check(result):
    oks = [label for label in result if parse(label).spec.name == "ok"]
    ours = [label for label in result if parse(label).spec.name == "low_rank"]
    pairs = [(low_rank, ok) for low_rank in ours for ok in oks]
    pairs += [(ok, "kf_rtrl") for ok in oks] + [("kf_rtrl", "uoro")] + [(ok, "tbptt:5") for ok in oks]
    return [_further(result, *pair) for pair in pairs]


def _further(result, a, b):
    """Whether one learner is as far as another after as many steps as both have taken."""
    last = min(result[label]["steps"][-1] for label in (a, b))
    one, other = (float(np.mean(_reached(result[label], last))) for label in (a, b))
    measured = f"T {one:.1f}, {other:.1f} after {last:,} steps"
    return Finding(f"{a} reaches at least as far as {b}", one >= other, measured)


def _table(result):
    last = max(curve["steps"][-1] for curve in result.values())
    at = [step for step in _AUTHORS if step <= 1.01 * last] or [last]
    rows = [("learner", *(f"T at {step:,} steps" for step in at))]
    for label, curve in result.items():
        end = 1.01 * curve["steps"][-1]
        rows.append((label, *(mean_spread(_reached(curve, step)) if step <= end else "-" for step in at)))
    if last >= 10_000:
        rows.append(("authors, ok:16 (128 units)", *(f"{_AUTHORS[step]}" for step in at)))
    return rows


def _charts(result):
    lines = [
        Line(label, [0, *curve["steps"]], [[1, *heights] for heights in curve["T"]])
        for label, curve in result.items()
    ]
    known = [(step, t) for step, t in _AUTHORS.items() if step <= max(line.x[-1] for line in lines) * 1.01]
    if known:
        steps, heights = zip((0, 1), *known, strict=True)
        lines.append(Line("authors' ok:16, 128 units", steps, [heights], theory=True))
    return [Chart("Longest copied sequence, T", "time steps (data)", lines, log=())]


_PAPER = {"units": 128, "lanes": 16, "rate": 10**-3.5, "tbptt_rate": 10**-2.5}
_CHEAP = ("low_rank:8/16", "ok:16/16", "kf_rtrl", "uoro", "tbptt:5", "tbptt:25", "tbptt:128")
_DEAR = ("ok:16", "kf_rtrl*8", "ok:8")

COPY_CURRICULUM = Experiment(
    name="copy-curriculum",
    claim="OK reaches longer sequences than KF-RTRL, which reaches longer ones than UORO; with online "
    "updates OK outperforms TBPTT.",
    protocol="Copy task of the OK authors' code: alphabet 0, 1, start, blank; length drawn from the last "
    "five of the curriculum; T rises by one when the moving average of the loss is below 0.15 bits per "
    "character. Highway network, Adam, one update at every time step.",
    source="Benzing et al., ICML 2019, and Mujika et al., NeurIPS 2018, figures on the copy task.",
    reported=(
        *(
            Reported(f"T of 16-OK after {step:,} steps, mean of 5", f"{t:.1f}", _LOGS, True)
            for step, t in _AUTHORS.items()
        ),
        Reported("largest T of KF-RTRL", "36", "reviews of Mujika et al., NeurIPS 2018", True),
        Reported("OK against TBPTT", "outperforms it", "Benzing et al., ICML 2019, abstract", True),
        Reported("curves of 8-KF-RTRL-AVG, UORO, TBPTT", "unknown", "Benzing et al., figure", False),
    ),
    deviations=(
        "tbptt:N makes one update per window of N steps, with a larger learning rate; windows do not start "
        "with sequences. tbptt:128 holds whole sequences and stands for full BPTT.",
        "The norm of the whole gradient is clipped at 1; the authors clip that of the recurrent weights.",
        "Learners with a block (ok:16/16) keep up to that many steps exactly: ours, not the papers'.",
        "At scale quick: 32 units and learning rate 3e-3; the authors have 128 and 10^-3.5.",
        "Scale day has 50,000 of the authors' two million steps, and 10,000 where a step is dear.",
    ),
    scales={
        "quick": {
            "seeds": 2, "units": 32, "lanes": 16, "rate": 3e-3, "tbptt_rate": 1e-2,
            "learners": dict.fromkeys(("low_rank:4/16", "ok:8", "kf_rtrl", "uoro", "tbptt:5"), 6_000),
        },
        "day": _PAPER | {
            "seeds": 3,
            "learners": dict.fromkeys(_CHEAP, 50_000) | dict.fromkeys(_DEAR, 10_000),
        },
        "full": _PAPER | {"seeds": 5, "learners": dict.fromkeys((*_CHEAP, *_DEAR), 2_000_000)},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)  # fmt: skip
