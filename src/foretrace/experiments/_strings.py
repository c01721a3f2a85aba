"""UORO's tasks: a^n b^n and distant brackets, every learner against the entropy floor."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optax

from foretrace import cells, tasks
from foretrace.experiments._curves import curves
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.learners import parse
from foretrace.plotting import Chart, Line
from foretrace.tasks import Task
from foretrace.training import chunks_for, trainer

_PAPER = "Tallec & Ollivier, ICLR 2018"


def _run(make: Callable[..., Task], settings, say, part) -> dict[str, Any]:
    task = make(**settings["task"])
    cell = getattr(cells, settings["cell"])(hidden=settings["units"], inputs=task.inputs)
    result: dict[str, Any] = {"floor": task.floor, "learners": {}}
    for label in settings["learners"]:
        result["learners"][label] = part.long(label, partial(_learn, settings, task, cell, label))
        say(f"{label}: {mean_spread(_late(result)[label])} bits per character, floor {task.floor:.3f}")
    return result


def _learn(settings, task, cell, label, progress):
    """Bits of every seed while one learner learns."""
    learner = parse(label).build(cell)
    every = parse(label).update_every

    def rate(count):
        return settings["rate"] / (1 + settings["decay"] * (count * every) ** 0.5)

    steps, chunks = chunks_for(settings["steps"], learner.block, settings["steps"] // 50)
    training = trainer(
        cell,
        learner,
        task,
        optax.adam(rate),
        lanes=settings["lanes"],
        steps=steps,
        update_every=every,
        clip=settings["clip"],
    )
    curve = curves(training, settings["seeds"], chunks, progress)
    return {"steps": curve.steps, "bits": curve.values["bits"]}


def _late(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """Bits of every seed over the last tenth of training."""
    return {label: np.mean(np.array(v["bits"])[:, -5:], axis=1) for label, v in result["learners"].items()}


def _check(result):
    late = {label: float(np.mean(values)) for label, values in _late(result).items()}
    names = {label: parse(label).spec.name for label in late}
    online = [label for label in late if names[label] != "tbptt"]
    first = next(label for label in late if names[label] == "tbptt")
    findings = [
        Finding(f"{label} gets below {first}", late[label] < late[first], _pair(late, label, first))
        for label in online
    ]
    ok = next(label for label in online if names[label] == "ok")
    findings.append(Finding(f"{ok} gets below uoro", late[ok] < late["uoro"], _pair(late, ok, "uoro")))
    least = min(late, key=lambda label: np.nan_to_num(late[label], nan=np.inf))
    findings.append(
        Finding("no learner gets below the entropy floor", late[least] > 0.97 * result["floor"],
                f"{least} {late[least]:.3f}, floor {result['floor']:.3f}")
    )  # fmt: skip
    return findings


def _pair(late, a, b):
    ours, theirs = ("a seed diverged" if np.isnan(late[k]) else f"{late[k]:.3f}" for k in (a, b))
    return f"{ours} against {theirs} bits per character"


def _table(result):
    rows = [("learner", "bits per character, last tenth", "above the floor", "time steps")]
    for label, late in _late(result).items():
        steps, known = result["learners"][label]["steps"][-1], late[np.isfinite(late)]
        above = f"{np.mean(known) - result['floor']:.3f}" if known.size else "-"
        rows.append((label, mean_spread(late), above, f"{steps:,}"))
    rows.append(("entropy floor", f"{result['floor']:.4f}", "0", "-"))
    return rows


def _charts(result):
    lines = [Line(label, curve["steps"], curve["bits"]) for label, curve in result["learners"].items()]
    last = max(line.x[-1] for line in lines)
    lines.append(Line("entropy floor", [0, last], [[result["floor"]] * 2], theory=True))
    top = float(np.nanmax([np.mean(line.y, axis=0)[len(line.x) // 10] for line in lines]))
    return [Chart("Bits per character", "time steps", lines, (), 0.8 * result["floor"], 1.05 * top)]


def _experiment(name: str, make: Callable[..., Task], claim: str, protocol: str, quick: dict, paper: dict):
    common = {"decay": 0.03, "rate": 1e-3, "cell": "gru"}
    learners = (
        "uoro",
        "uoro/16",
        "kf_rtrl",
        "ok:8",
        "ok:8/16",
        "low_rank:8/16",
        "rtrl/64",
        "tbptt:1",
        "tbptt:2",
        "tbptt:16",
    )
    return Experiment(
        name=name,
        claim=claim,
        protocol=f"{protocol} GRU with a linear readout, Adam with rate 10^-3 / (1 + 0.03 sqrt(t)), "
        "one update at every step, TBPTT's at the end of each window. Nothing is ever reset.",
        source=f"{_PAPER}, section on next-character prediction.",
        reported=(
            Reported("entropy floor", f"{make(**paper).floor:.4f}", "derived from the generator", True),
            Reported("network, optimiser", "GRU 64, one lane, Adam as above", "the authors' code", True),
            Reported("losses of UORO and TBPTT", "unknown", f"{_PAPER}, table and figure", False),
        ),
        deviations=(
            "At scale quick: 32 units, 16 lanes, a constant rate, few steps; n up to 8 in a^n b^n.",
            "Scale day has a twentieth of the paper's 10^7 characters.",
            "KF-RTRL, OK, exact RTRL and blocks are not in the paper. Bits are the mean of the last tenth.",
        ),
        scales={
            "quick": common
            | {
                "seeds": 2, "task": quick, "units": 32, "lanes": 16, "steps": 8_000, "clip": 1.0,
                "decay": 0.0, "learners": ("uoro", "ok:8/16", "low_rank:8/16", "tbptt:1"),
            },
            "day": common
            | {
                "seeds": 3, "task": paper, "units": 64, "lanes": 1, "steps": 500_000, "clip": None,
                "learners": learners,
            },
            "full": common
            | {
                "seeds": 3, "task": paper, "units": 64, "lanes": 1, "steps": 10_000_000, "clip": None,
                "learners": learners,
            },
        },
        run=partial(_run, make),
        check=_check,
        table=_table,
        charts=_charts,
    )  # fmt: skip


ANBN = _experiment(
    "anbn",
    tasks.anbn,
    "UORO learns to count where TBPTT with a short window cannot; OK, with less noise, gets nearer to the "
    "floor.",
    "Next character in strings a^n, newline, b^n, newline; n is uniform in 1 to 32 (at scale quick 8).",
    {"longest": 8},
    {"longest": 32},
)

BRACKETS = _experiment(
    "brackets",
    tasks.brackets,
    "UORO learns a dependency across brackets where TBPTT with a short window cannot; OK, with less "
    "noise, gets nearer to the floor.",
    "Next character in lines [s]k[s]: one random letter, a gap of five, the letter again, of ten letters.",
    {"letters": 1, "gap": (5, 5), "alphabet": 10},
    {"letters": 1, "gap": (5, 5), "alphabet": 10},
)
