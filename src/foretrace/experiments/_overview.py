"""Every learner in one table: how near its gradient is to the exact one, and what it learns with it."""

from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import optax

from foretrace import cells, learners, tasks
from foretrace._types import Cell
from foretrace._xla import jit_fast_compile
from foretrace.experiments._curves import curves
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.experiments._fixed_networks import endless, follow
from foretrace.experiments._gradient_error import along, flat
from foretrace.plotting import Chart, Line
from foretrace.tasks import Task
from foretrace.training import chunks_for, trainer

_TASKS = {"copy": tasks.copy, "adding": tasks.adding, "rotation": tasks.rotation}
_SHOWN = {
    "copy": "length of the strings copied",
    "adding": "squared error, adding",
    "rotation": "squared error, rotation",
}
_COMPARED = "Marschall, Cho, Savin, JMLR 21(135), 2020"
_EXACT = 16  # steps per block of the exact learner that others are held against


def _cell(settings: dict[str, Any], task: Task) -> Cell:
    return cells.rnn(hidden=settings["units"], inputs=task.inputs)


def _run(settings, say, part):
    result: dict[str, Any] = {}
    for name, make in _TASKS.items():
        task = make()
        frozen = cache(partial(_frozen, settings, task))
        result[name] = {}
        for label in settings["learners"]:
            values = part.long(f"{name}, {label}", partial(_measure, settings, name, task, label, frozen))
            result[name][label] = values
            say(
                f"{name}, {label}: cosine {mean_spread(values['cosine'])}, "
                f"{_SHOWN[name]} {mean_spread(values['learnt'])}"
            )
    return result


def _frozen(settings, task):
    """Networks half way through learning, frozen, the stream that each of them sees, exact gradients."""
    cell, steps = _cell(settings, task), settings["cosine_steps"]
    training = trainer(
        cell, learners.rtrl(cell, block=_EXACT), endless(task), optax.adam(settings["rate"]),
        lanes=settings["lanes"], steps=chunks_for(settings["steps"] // 2, _EXACT, 10**9)[0], clip=1.0,
    )  # fmt: skip

    def one(key):
        carry = training.chunk(training.init(key))[0]
        start = task.init(jax.random.fold_in(key, 1), 1)
        if hasattr(start, "curriculum"):  # strings as long as the network has learned to copy
            start = start._replace(curriculum=carry.streams.task.curriculum)
        return follow(cell, endless(task), carry.params, start, steps)

    streams = jit_fast_compile(jax.vmap(one))(jax.random.split(jax.random.key(5), settings["seeds"]))
    return streams, _gradients(settings, learners.rtrl(cell, block=_EXACT), streams)


def _gradients(settings, learner, streams):
    """Gradients at every step of every seed's stream, (seeds, steps, P)."""

    def one(both):
        (params, xs, credits), key = both

        def each(state, inputs):
            return flat(learner.grad(params, state, inputs[1]))

        return along(learner, params, learner.init(key, params), (xs, credits), each)[1]

    keys = jax.random.split(jax.random.key(6), settings["seeds"])
    return np.asarray(jit_fast_compile(lambda pairs: jax.lax.map(one, pairs))((streams, keys)))


def _cosine(gradients, exact):
    """Mean over steps but the first ones, which have no past to speak of; 0 for no gradient, (seeds,)."""
    products = np.sum(gradients * exact, axis=2)
    lengths = np.linalg.norm(gradients, axis=2) * np.linalg.norm(exact, axis=2)
    return np.mean((products / np.where(lengths > 0, lengths, 1))[:, gradients.shape[1] // 4 :], axis=1)


def _measure(settings, name, task, label, frozen, progress):
    cell = _cell(settings, task)
    learner, (streams, exact) = learners.parse(label).build(cell), frozen()
    cosine = _cosine(_gradients(settings, learner, streams), exact)
    every = learners.parse(label).update_every
    steps, chunks = chunks_for(settings["steps"], learner.block, settings["steps"] // 20)
    rate = settings["rates"].get(label, settings["rate"])
    training = trainer(
        cell, learner, task, optax.adam(optax.linear_schedule(rate, 0.0, steps * chunks // every)),
        lanes=settings["lanes"], steps=steps, update_every=every, clip=1.0,
    )  # fmt: skip
    curve = curves(training, settings["seeds"], chunks, progress)
    score = (
        curve.values["T"][:, -1] if name == "copy" else curve.values[task.loss.name][:, -2:].mean(axis=1)
    )
    return {"cosine": cosine, "learnt": score}


def _means(result: dict[str, Any], name: str, key: str) -> dict[str, float]:
    return {label: float(np.mean(values[key])) for label, values in result[name].items()}


def _check(result):
    findings = []
    for name in _TASKS:
        cosine, score = _means(result, name, "cosine"), _means(result, name, "learnt")
        noisy = ("ok:8/16", "kf_rtrl", "uoro")
        findings.append(
            Finding(
                f"{name}: exact RTRL's cosine is 1, and it falls from OK over KF-RTRL to UORO",
                cosine["rtrl/16"] > 0.999 and all(cosine[a] > cosine[b] for a, b in pairwise(noisy)),
                ", ".join(f"{label} {cosine[label]:.3f}" for label in ("rtrl/16", *noisy)),
            )
        )
        sign = 1 if name == "copy" else -1
        for other in ("immediate", "frozen"):
            findings.append(
                Finding(
                    f"{name}: ok:8/16 learns more than {other}",
                    sign * score["ok:8/16"] > sign * score[other],
                    f"{_SHOWN[name]}: {score['ok:8/16']:.3g} against {score[other]:.3g}",
                )
            )
    return findings


def _table(result):
    heads = [f"{name}: {column}" for name in result for column in ("cosine", _SHOWN[name])]
    rows = [("learner", *heads)]
    for label in next(iter(result.values())):
        columns = [result[name][label][key] for name in result for key in ("cosine", "learnt")]
        rows.append((label, *(mean_spread(values, 2) for values in columns)))
    return rows


def _charts(result):
    return [
        Chart(
            _SHOWN[name].capitalize(), "cosine with the exact gradient",
            [
                Line(label, [np.mean(v["cosine"])], np.array(v["learnt"])[:, None])
                for label, v in values.items()
            ],
            log=() if name == "copy" else ("y",), points=True,
        )
        for name, values in result.items()
    ]  # fmt: skip


_FEW = ("rtrl/16", "low_rank:8/16", "ok:8/16", "kf_rtrl", "uoro", "immediate", "frozen")
_SIZED = (
    *("rtrl/16", "ok:8/16", "ok:8", "kf_rtrl", "ktp:8", "uoro/16", "uoro", "sketch:8", "snap:1"),
    *("eprop", "rflo", "rolling_tbptt:16", "tbptt:16", "immediate", "frozen"),
)
_OTHERS = learners.SPECS.keys() - {learners.parse(label).spec.name for label in _SIZED}
_LEARNERS = (*_SIZED, *(name for name in learners.SPECS if name in _OTHERS))
_COMMON = {
    "units": 64, "lanes": 8, "rate": 1e-3, "rates": {"tbptt:16": 1e-2},
    "cosine_steps": 512, "learners": _LEARNERS,
}  # fmt: skip

LEARNERS = Experiment(
    name="learners",
    claim="An exact gradient, less noise and a longer memory each help: every learner's cosine with the "
    "exact gradient, and what is learned with it, on three tasks.",
    protocol="A vanilla network of 64 units, Adam, its rate falling to zero, one update per step (TBPTT: "
    "per window), on copying strings, on adding two inputs that are 6 and 10 steps old, and on forecasting "
    "a rotation. Cosine: mean over the steps of a stream without restarts, with the weights frozen half "
    "way through learning with exact RTRL at a steady rate. Learning: the length reached, or the squared "
    "error over the last tenth.",
    source=f"The protocol is ours, after the comparisons of {_COMPARED}.",
    reported=(
        Reported(
            "whether the cosine foretells what is learned", "not alone", f"{_COMPARED}, abstract", True
        ),
    ),
    deviations=(
        "A vanilla network has no leak and no unit with a memory of its own: there e-prop and RFLO are "
        "`immediate`, with other words.",
        "Scale quick has 32 units and a few of the learners, the others all.",
        "One rate for all, ten times that for TBPTT with its 16 times fewer updates.",
        "No claim that `immediate` beats `frozen`: on adding it does not.",
        "SnAp-2 is exact RTRL where every unit hears every other: it is left out.",
    ),
    scales={
        "quick": _COMMON | {"seeds": 2, "steps": 4_000, "units": 32, "learners": _FEW},
        "day": _COMMON | {"seeds": 3, "steps": 20_000},
        "full": _COMMON | {"seeds": 10, "steps": 200_000},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
