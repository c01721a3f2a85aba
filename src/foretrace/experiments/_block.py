"""Time per step against the block, and whether the block that is chosen from the sizes is near the best."""

from functools import partial
from typing import Any

import numpy as np

from foretrace.experiments._bench import SETTINGS, measure_setting
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.learners import analyse, parse
from foretrace.plotting import Chart, Line

_BLOCKS = tuple(2**i for i in range(7))  # those that auto chooses from


def _run(settings, say, part):
    result: dict[str, Any] = {"blocks": _BLOCKS, "cases": {}}
    for name, learner in ((name, learner) for name, many in settings["cases"].items() for learner in many):
        values = part(f"{name}, {learner}", partial(_measure, settings["seeds"], name, learner))
        result["cases"].setdefault(name, {})[learner] = values
        auto, best, _ = _auto(values)
        say(f"{name}, {learner}: auto takes block {auto}, block {best} is the fastest")
    return result


def _measure(seeds: int, name: str, learner: str) -> dict[str, Any]:
    """Microseconds per step, (seeds, blocks), and the block that is taken unless one is asked for."""
    setting = SETTINGS[name]
    sweep = setting._replace(learners=tuple(f"{learner}/{block}" for block in _BLOCKS), svd=None)
    auto = analyse(setting.build_cell()).best_block(learner, lanes=setting.lanes)
    records = [measure_setting(name, 3, lambda line: None, sweep) for _ in range(seeds)]
    # The last row is the truncated learner that every setting is timed with.
    return {"auto": auto, "us": [[row["us"] for row in record["rows"][:-1]] for record in records]}


def _cases(result: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Setting, learner and what was measured of them."""
    return [(name, *case) for name, learners in result["cases"].items() for case in learners.items()]


def _auto(values: dict[str, Any]) -> tuple[int, int, np.ndarray]:
    """The block of `auto`, the fastest one, and the time of the one over that of the other, (seeds,)."""
    us = np.array(values["us"], float)
    best = int(np.argmin(us.mean(axis=0)))
    return values["auto"], _BLOCKS[best], us[:, _BLOCKS.index(values["auto"])] / us[:, best]


def _check(result):
    findings = []
    for name, learner, values in _cases(result):
        case = f"{name}, {learner}"
        auto, best, ratio = _auto(values)
        measured = f"block {auto} takes {np.mean(ratio):.2f} times as long as block {best}"
        near = bool(np.mean(ratio) < 1.25)
        findings.append(Finding(f"{case}: auto's block is within a quarter of the best", near, measured))
        if parse(learner).spec.name in ("ok", "rtrl"):
            us = np.mean(values["us"], axis=0)
            findings.append(
                Finding(
                    f"{case}: a longer block is faster than block 1", bool(us[1:].min() < us[0]),
                    f"{us[0]:,.0f} microseconds at block 1, {us[1:].min():,.0f} at the best",
                )
            )  # fmt: skip
    return findings


def _table(result):
    heads = (f"{block}: us per step" for block in result["blocks"])
    rows: list[tuple[str, ...]] = [("setting", "learner", *heads, "auto", "auto / best")]
    for name, learner, values in _cases(result):
        auto, _, ratio = _auto(values)
        us = (f"{value:,.0f}" for value in np.mean(values["us"], axis=0))
        rows.append((name, learner, *us, str(auto), mean_spread(ratio)))
    return rows


def _charts(result):
    groups: dict[str, list[Line]] = {"OK": [], "other learners": []}
    for name, learner, values in _cases(result):
        group = "OK" if parse(learner).spec.name == "ok" else "other learners"
        groups[group].append(Line(f"{name}, {learner}", result["blocks"], values["us"]))
    return [
        Chart(f"Microseconds per step, {name}", "block, steps", group, ("x2", "y"))
        for name, group in groups.items()
        if group
    ]


_CASES = {
    "highway-128": ("ok:16", "kf_rtrl", "uoro"),
    "highway-256": ("ok:8",),
    "highway-32": ("ok:8",),
    "rnn-256": ("ok:8", "kf_rtrl", "uoro"),
    "lstm-128": ("ok:8",),
    "rtrl-64": ("rtrl",),
}

BLOCK = Experiment(
    name="block",
    claim="A longer block (ours) makes a step of OK and of exact RTRL faster, and the block that is chosen "
    "from the sizes is near the best.",
    protocol="One step with gradient and update at every block that `--block auto` chooses from, at the "
    "settings of `foretrace bench` and in its loops, all blocks in turns in one process; median of three "
    "runs, and a sweep for each seed. What a block does to the noise: `variance`.",
    source="Blocks are ours; block 1 is the papers' algorithm.",
    reported=(Reported("time per step of OK", "O(r n^3)", "Benzing et al., ICML 2019, table", False),),
    deviations=(
        "The papers count operations; this is time on one machine, of our implementation.",
        "The weights that the choice gives to operations were fitted to times of the same machine.",
    ),
    scales={
        "quick": {"seeds": 1, "cases": {"highway-32": ("ok:8",), "rtrl-32": ("rtrl",)}},
        "day": {"seeds": 1, "cases": _CASES},
        "full": {"seeds": 5, "cases": _CASES},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
