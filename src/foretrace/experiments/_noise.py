"""The noise of each estimator along frozen streams: against time, and against the number of units."""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from foretrace import learners
from foretrace._checks import UserError
from foretrace._xla import jit_fast_compile
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.experiments._fixed_networks import NETWORKS, highway, stream
from foretrace.experiments._gradient_error import Errors, errors
from foretrace.plotting import Chart, Line
from foretrace.runs._resumable import PartCache

_ROUNDING = 1e-9  # a relative variance below it is that of 32-bit numbers
_PAPER = "Mujika, Meier, Steger, NeurIPS 2018"
_DEVIATIONS = (
    "Networks, stream and lengths are ours: the papers' settings of this figure are unknown.",
    "Three networks instead of two: as the papers initialise (N(0, 0.01^2), where hidden units stay near "
    "zero), random weights that satisfy what the theory assumes of the units, and trained.",
    "The trained network learned, and is measured, on a stream that is never reset.",
    "Gradients are read with the loss gradient at the hidden state scaled to length 1.",
    "Relative variance is E|g - exact|^2 / |exact|^2, squares summed over the steps of a bin. A gradient "
    "is read before the current step is compressed: same mean as in the papers' order, less noise.",
)


def _measure(
    kind: str, units: int, settings: dict[str, Any], edges: Any, say: Callable[[str], None], part: PartCache
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Relative variance and cosine per learner, (seeds, bins), over sign draws and the steps of a bin."""
    seeds, draws, block = (settings[name] for name in ("seeds", "draws", "exact_block"))

    @cache
    def streams():
        lasting = {"steps": settings["steps"], "training": settings["training"], "rate": settings["rate"]}
        make = partial(stream, kind, units, **lasting)
        networks = jit_fast_compile(jax.vmap(make))(jax.random.split(jax.random.key(units), seeds))
        lost = int(np.sum(~np.all(np.isfinite(np.asarray(networks.credits)), axis=(1, 2))))
        if lost:  # on a stream that is never reset the influence of an unstable network overflows
            raise UserError(
                f"training must leave finite parameters; got {lost} of {seeds} networks ({kind}, {units} "
                f"units) without after {settings['training']} steps; choose fewer, or a lower rate."
            )
        return networks

    def measure(label):
        signs = jax.random.split(jax.random.key(2 * units + 1), seeds)
        series = _compared(units, label, draws, block)(streams(), signs)
        parts = (np.asarray(a, float)[:, : edges[-1]] for a in series)
        error, size, cosine = (np.add.reduceat(a, edges[:-1], axis=1) / np.diff(edges) for a in parts)
        return error / size, cosine

    noise = {}
    for label in settings["learners"]:
        values = part(f"{kind}, {units} units, {label}", partial(measure, label))
        noise[label] = tuple(np.array(a) for a in values)
        say(
            f"{kind}, {units} units, {label}: relative variance {noise[label][0][:, -1].mean():.3g} at last"
        )
    return noise


@cache
def _compared(units: int, label: str, draws: int, block: int) -> Callable[..., Errors]:
    """A learner beside exact RTRL on every stream, compiled once for networks of all kinds."""
    cell = highway(units)
    learner, exact = learners.parse(label).build(cell), learners.rtrl(cell, block=block)

    def network(both):
        (params, xs, credits), key = both
        draw = partial(errors, learner, exact, params, xs=xs, credits=credits)
        each = jax.vmap(lambda key: draw(key=key))(jax.random.split(key, draws))
        return jax.tree.map(lambda a: a.mean(axis=0), each)

    return jit_fast_compile(lambda streams, keys: jax.lax.map(network, (streams, keys)))


def _run_time(settings, say, part):
    edges = np.unique(np.geomspace(1, settings["steps"] + 1, 17).astype(int)) - 1
    times = [float(np.sqrt((a + 1) * b)) for a, b in pairwise(edges)]
    result: dict[str, Any] = {"times": times}
    for kind in settings["networks"]:
        noise = _measure(kind, settings["units"], settings, edges, say, part)
        result[kind] = {label: {"variance": v, "cosine": c} for label, (v, c) in noise.items()}
    return result


def _run_size(settings, say, part):
    result: dict[str, Any] = {"units": list(settings["units"])}
    second = np.array([settings["steps"] // 2, settings["steps"]])
    for kind in settings["networks"]:
        sizes = [_measure(kind, units, settings, second, say, part) for units in settings["units"]]
        result[kind] = {
            label: {
                "variance": np.concatenate([noise[label][0] for noise in sizes], axis=1),
                "cosine": np.concatenate([noise[label][1] for noise in sizes], axis=1),
            }
            for label in settings["learners"]
        }
    return result


def slope(x: Any, y: Any) -> tuple[float, float]:
    """Slope of log y (seeds, n) against log x (n,): mean over seeds, and two standard errors."""
    fits = np.polyfit(np.log(x), np.log(np.transpose(y)), 1)[0]
    return float(fits.mean()), float(2 * fits.std(ddof=1) / np.sqrt(len(fits))) if len(fits) > 1 else np.nan


def _networks(result):
    return [(kind, result[kind]) for kind in NETWORKS if kind in result]


def _check_time(result):
    times = np.array(result["times"])
    late, settled = times > times[-1] / 10, times > times[-1] / 100
    findings = []
    for kind, noise in _networks(result):
        variance = {label: np.mean(np.array(v["variance"])[:, late]) for label, v in noise.items()}
        cosine = {label: np.mean(np.array(v["cosine"])[:, late]) for label, v in noise.items()}
        findings.append(_ordered(f"{kind}, last decade of time", variance, cosine))
        steepest = {
            label: slope(times[settled], np.array(v["variance"])[:, settled])
            for label, v in noise.items()
            if variance[label] > _ROUNDING
        }
        findings.append(
            Finding(
                f"{kind}: the noise is stable over the last two decades of time (growth below t^0.15)",
                all(abs(value) < 0.15 for value, _ in steepest.values()),
                "exponent of t: " + _slopes(steepest),
            )
        )
    return findings


def _check_size(result):
    units, findings = result["units"], []
    for kind, noise in _networks(result):
        variance = {label: np.array(v["variance"]) for label, v in noise.items()}
        cosine = {label: np.mean(v["cosine"], axis=0) for label, v in noise.items()}
        for index, n in enumerate(units):
            means = {label: np.mean(v[:, index]) for label, v in variance.items()}
            ordered = _ordered(f"{kind}, {n} units", means, {k: v[index] for k, v in cosine.items()})
            if not ordered.holds or n == units[-1]:
                findings.append(ordered)
        value, width = slope(units, variance["uoro"] / variance["kf_rtrl"])
        findings.append(
            Finding(
                f"{kind}: UORO's variance over KF-RTRL's grows like n (exponent 1 in theory; 0.5 to 1.5)",
                0.5 < value < 1.5,
                f"exponent {value:.2f} ± {width:.2f}",
            )
        )
    return findings


def _ordered(where, variance, cosine):
    oks = [label for label in variance if learners.parse(label).spec.name == "ok"]
    ok = max(oks, key=lambda label: variance[label])
    names = (ok, "kf_rtrl", "uoro")
    holds = variance[ok] < variance["kf_rtrl"] < variance["uoro"] and cosine["kf_rtrl"] > cosine["uoro"]
    measured = ", ".join(f"{n} {variance[n]:.2g} (cosine {cosine[n]:.2f})" for n in names)
    return Finding(f"{where}: relative variance OK < KF-RTRL < UORO", bool(holds), measured)


def _slopes(fits):
    return ", ".join(f"{label} {value:.2f} ± {width:.2f}" for label, (value, width) in fits.items())


def _table_time(result):
    rows = [("network", "learner", "relative variance, last decade", "cosine", "exponent of t")]
    times = np.array(result["times"])
    late, settled = times > times[-1] / 10, times > times[-1] / 100
    for kind, noise in _networks(result):
        for label, values in noise.items():
            variance, cosine = (np.array(values[key]) for key in ("variance", "cosine"))
            fit = _slopes({"": slope(times[settled], variance[:, settled])}).strip()
            rounding = variance[:, late].mean() < _ROUNDING
            rows.append(
                (
                    kind,
                    label,
                    "rounding" if rounding else mean_spread(variance[:, late].mean(axis=1)),
                    mean_spread(cosine[:, late].mean(axis=1)),
                    "-" if rounding else fit,
                )
            )
    return rows


def _table_size(result):
    units = result["units"]
    rows = [("network", "learner", *(f"n = {n}" for n in units), "exponent of n", "theory")]
    theory = {"uoro": "1", "kf_rtrl": "0", "uoro / kf_rtrl": "1"}
    for kind, noise in _networks(result):
        variances = {label: np.array(values["variance"]) for label, values in noise.items()}
        variances["uoro / kf_rtrl"] = variances["uoro"] / variances["kf_rtrl"]
        for label, variance in variances.items():
            cells = ["rounding" if v.mean() < _ROUNDING else f"{v.mean():.3g}" for v in variance.T]
            fit = "-" if "rounding" in cells else _slopes({"": slope(units, variance)}).strip()
            rows.append((kind, label, *cells, fit, theory.get(label, "-")))
    return rows


def _charts_time(result):
    times, charts = result["times"], []
    for kind, noise in _networks(result):
        lines = [Line(label, times, values["variance"]) for label, values in noise.items()]
        title = f"Relative variance, {kind}"
        charts.append(Chart(title, "time step", lines, floor=1e-6))
    for kind, noise in _networks(result):
        lines = [Line(label, times, values["cosine"]) for label, values in noise.items()]
        charts.append(Chart(f"Cosine with exact RTRL, {kind}", "time step", lines, ("x",), 0, 1.03))
    return charts


def _charts_size(result):
    units, charts = result["units"], []
    for kind, noise in _networks(result):
        lines = [Line(label, units, values["variance"]) for label, values in noise.items()]
        for label, power in (("uoro", 1), ("kf_rtrl", 0)):
            start = float(np.mean(noise[label]["variance"], axis=0)[0])
            slope_line = [[0.55 * start * (n / units[0]) ** power for n in units]]
            lines.append(Line(f"theory, slope {power}", units, slope_line, theory=True))
        title = f"Relative variance, {kind}"
        charts.append(Chart(title, "units n", lines, log=("x2", "y"), floor=1e-6))
    for kind, noise in _networks(result):
        lines = [Line(label, units, values["cosine"]) for label, values in noise.items()]
        charts.append(Chart(f"Cosine with exact RTRL, {kind}", "units n", lines, ("x2",), 0, 1.03))
    return charts


_FEW = ("uoro", "kf_rtrl", "ok:8", "ok:8/16+1", "low_rank:8/16")
_MANY = ("uoro", "kf_rtrl", "kf_rtrl*8", "ok:8", "ok:8/16", "ok:8/16+1", "low_rank:8/16")

NOISE_TIME = Experiment(
    name="noise-time",
    claim="KF-RTRL's noise is stable over time and far below UORO's; OK's is below both.",
    protocol="A highway network with frozen weights reads copy-task sequences as one endless stream. At "
    "every step each learner's gradient is compared with that of exact RTRL; several draws of the signs of "
    "each learner, several networks.",
    source=f"{_PAPER}, figure on gradient noise (its axes could not be confirmed).",
    reported=(
        Reported("KF-RTRL's noise over time", "stable", f"{_PAPER}, abstract", True),
        Reported("range of time steps", "to about 10^4", f"{_PAPER}, figure", False),
    ),
    deviations=_DEVIATIONS,
    scales={
        "quick": {
            "seeds": 2, "draws": 4, "units": 16, "steps": 10_000, "training": 4_000,
            "rate": 3e-3, "exact_block": 16, "networks": ("untrained", "random", "trained"),
            "learners": _FEW,
        },
        "day": {
            "seeds": 5, "draws": 8, "units": 32, "steps": 10_240, "training": 4_000,
            "rate": 1e-3, "exact_block": 32, "networks": ("untrained", "random", "trained"),
            "learners": _MANY,
        },
        "full": {
            "seeds": 5, "draws": 16, "units": 256, "steps": 10_240, "training": 4_000,
            "rate": 3e-4, "exact_block": 256, "networks": ("untrained", "random", "trained"),
            "learners": _MANY,
        },
    },
    run=_run_time,
    check=_check_time,
    table=_table_time,
    charts=_charts_time,
)  # fmt: skip

NOISE_SIZE = Experiment(
    name="noise-size",
    claim="UORO's variance is larger than KF-RTRL's by a factor that grows like the number of units n; "
    "OK's is below both.",
    protocol="As noise-time, with networks of different size: the second half of a short stream, slopes "
    "fitted to log variance against log n for each seed; ± is two standard errors over seeds.",
    source=f"{_PAPER}, Theorem 1 (its wording could not be confirmed) and figure on gradient noise.",
    reported=(
        Reported("KF-RTRL's noise beside UORO's", "asymptotically smaller", f"{_PAPER}, abstract", True),
        Reported("mean variance of an entry, KF-RTRL", "O(1/n)", f"{_PAPER}, Theorem 1", False),
        Reported("mean variance of an entry, UORO", "O(1)", f"{_PAPER}, Theorem 1", False),
        Reported("OK against 8-KF-RTRL-AVG as n grows", "decays more", "Benzing et al., ICML 2019", False),
    ),
    deviations=_DEVIATIONS,
    scales={
        "quick": {
            "seeds": 4, "draws": 6, "units": (16, 64, 128), "steps": 128, "training": 0, "rate": 0.0,
            "exact_block": 32, "networks": ("untrained", "random"), "learners": _FEW,
        },
        "day": {
            "seeds": 5, "draws": 8, "units": (16, 32, 64, 128, 256), "steps": 128, "training": 4_000,
            "rate": 1e-3, "exact_block": 64, "networks": ("untrained", "random", "trained"),
            "learners": _MANY,
        },
        "full": {
            "seeds": 10, "draws": 16, "units": (16, 32, 64, 128, 256, 512), "steps": 1024,
            "training": 4_000, "rate": 1e-3, "exact_block": 256,
            "networks": ("untrained", "random", "trained"),
            "learners": _MANY,
        },
    },
    run=_run_size,
    check=_check_size,
    table=_table_size,
    charts=_charts_size,
)  # fmt: skip
