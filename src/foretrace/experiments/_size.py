"""What a gradient is worth and what it costs, against the number of units."""

from functools import partial
from typing import Any

import jax
import numpy as np

from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.experiments._fixed_networks import highway, stream
from foretrace.experiments._measure_noise import measure_noise
from foretrace.experiments._noise import slope
from foretrace.experiments._noise_table import Noise
from foretrace.plotting import Chart, Line

_QUANTITIES = {
    "cosine": lambda row: row.cosine,
    "error": lambda row: row.error,
    "microseconds": lambda row: row.microseconds,
    "megabytes": lambda row: row.state_bytes / 1e6,
}


def _run(settings, say, part):
    result: dict[str, Any] = {"units": list(settings["units"])}
    names = settings["learners"]
    shape = len(settings["units"]), settings["seeds"]
    for label in _QUANTITIES:
        result[label] = {name: np.zeros(shape) for name in names}
    for place, units in enumerate(settings["units"]):
        for seed in range(settings["seeds"]):
            values = part(f"{units} units, seed {seed}", partial(_measure, units, seed, settings))
            for label, of_names in values.items():
                for name, value in of_names.items():
                    result[label][name][place, seed] = value
        figures = ", ".join(
            f"{name} cosine {result['cosine'][name][place].mean():.2f}, "
            f"{result['microseconds'][name][place].mean():.3g} us"
            for name in names
        )
        say(f"{units} units: {figures}")
    return result


def _measure(units: int, seed: int, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each quantity of each learner."""
    steps, names = settings["steps"], settings["learners"]
    key = jax.random.fold_in(jax.random.key(units), seed)
    make = partial(stream, settings["network"], units, steps=steps)
    lasting = jax.jit(partial(make, training=settings["training"], rate=settings["rate"]))(key)
    table = measure_noise(
        highway(units),
        lasting.params,
        lasting.xs[:, None],
        lasting.credits[:, None],
        names,
        draws=settings["draws"],
        memory=settings["memory"],
    )
    rows: list[Noise] = list(table.rows)
    return {
        label: {name: float(read(row)) for name, row in zip(names, rows, strict=True)}
        for label, read in _QUANTITIES.items()
    }


def _exponents(result: dict[str, Any], name: str) -> tuple[float, float]:
    return slope(result["units"], np.transpose(result["microseconds"][name]))


def _low_ranks(result: dict[str, Any]) -> list[str]:
    return [name for name in result["cosine"] if name.startswith("low_rank")]


def _check(result):
    last = result["units"][-1]
    cosine = {name: float(np.mean(np.array(values)[-1])) for name, values in result["cosine"].items()}
    findings = []
    for name in _low_ranks(result):
        value, width = _exponents(result, name)
        findings.append(
            Finding(
                f"{name}: time per step grows no faster than units^2.3",
                value <= 2.3,
                f"exponent {value:.2f} ± {width:.2f}",
            )
        )
        findings.append(
            Finding(
                f"{name}, {last} units: a cosine with the exact gradient of .95 or more",
                cosine[name] >= 0.95,
                f"{cosine[name]:.3f}",
            )
        )
    return findings


def _table(result):
    units = result["units"]
    rows = [("learner", *(f"n = {n}: cosine, us, MB" for n in units), "exponent of time")]
    for name in result["cosine"]:
        cosine, time, size = (
            np.array(result[label][name]) for label in ("cosine", "microseconds", "megabytes")
        )
        cells = (
            f"{mean_spread(c, 2)}, {np.mean(t):.3g}, {np.mean(s):.3g}"
            for c, t, s in zip(cosine, time, size, strict=True)
        )
        rows.append((name, *cells, "{:.2f} ± {:.2f}".format(*_exponents(result, name))))
    return rows


def _charts(result):
    units = result["units"]

    def lines(label):
        return [Line(name, units, np.transpose(values)) for name, values in result[label].items()]

    return [
        Chart("Cosine with the exact gradient", "units n", lines("cosine"), ("x2",), 0, 1.03),
        Chart("Time per step, us", "units n", lines("microseconds"), ("x2", "y")),
    ]


_COMMON = {
    "network": "trained", "rate": 3e-3, "memory": 2e9,
    "learners": ("uoro/16", "kf_rtrl/16", "ok:8/16", "ok:8/16+1", "low_rank:4/16", "low_rank:8/16"),
}  # fmt: skip

SIZE = Experiment(
    name="size",
    claim="low_rank's price grows like that of back-propagation, with the square of the units, and its "
    "gradient stays close to the exact one.",
    protocol="Highway networks of different size, trained on the copy task for a while, read it as an "
    "endless stream with frozen parameters. Cosine with the exact gradient, mean over steps and draws of "
    "the signs, and time per step with one gradient and one update, one lane. Exponents are fitted to the "
    "logarithms.",
    source="low_rank is ours.",
    reported=(
        Reported("time per step of OK, rank r, n units", "O(r n^3)", "Benzing et al., ICML 2019", False),
    ),
    deviations=(
        "Where exact RTRL takes more than 2 GB, the mean of two low_rank of rank 64 stands in for it.",
        "Times are those of the machine that measured; only their growth is judged.",
    ),
    scales={
        "quick": _COMMON
        | {"seeds": 2, "draws": 4, "units": (16, 32, 64), "steps": 160, "training": 4_000},
        "day": _COMMON
        | {"seeds": 3, "draws": 4, "units": (64, 128, 256, 512), "steps": 256, "training": 8_000},
        "full": _COMMON
        | {"seeds": 3, "draws": 8, "units": (64, 128, 256, 512, 1024), "steps": 512, "training": 20_000},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)  # fmt: skip
