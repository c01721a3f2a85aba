"""Records of experiments as JSON files: settings, results, and the machine and versions behind them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from foretrace.bench import environment
from foretrace.experiments._experiment import SCALES, Experiment
from foretrace.training import write_json


def perform(
    experiment: Experiment, settings: dict[str, Any], command: str, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs an experiment and returns its record, ready for JSON.

    Args:
        experiment: what to run.
        settings: one of its `scales`, perhaps with another number of seeds.
        command: what was typed.
        say: told one line per finished part.
    """
    before = environment()
    start = time.perf_counter()
    result = experiment.run(settings, say)
    # Ratios and slopes of 32-bit measurements need no more than six digits.
    result = _rounded(result)
    return {
        "experiment": experiment.name,
        "command": command,
        "settings": settings,
        **before,
        "seconds": round(time.perf_counter() - start, 1),
        "findings": [finding._asdict() for finding in experiment.check(result)],
        "result": result,
    }


def save(record: dict[str, Any], path: Path) -> None:
    """Writes a record to a file of its own."""
    write_json(path, record)


def load(folder: Path, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The records of an experiment in a folder, by scale; in the order quick, day, full."""
    found = {}
    for scale in SCALES:
        path = record_path(folder, experiment.name, scale)
        if path.exists():
            found[scale] = _read(path, experiment)
    return found


def record_path(folder: Path, name: str, scale: str) -> Path:
    """Where the record of an experiment at a scale is kept."""
    return folder / f"{name}-{scale}.json"


def _read(path: Path, experiment: Experiment) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        if record["experiment"] == experiment.name and "result" in record:
            return record
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise ValueError(
        f"{path} must be a record that foretrace reproduce wrote; got something else; remove it."
    )


def _rounded(value: Any) -> Any:
    """Plain lists and numbers; arrays and NumPy scalars with them, floats to six digits."""
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if np.ndim(value):
        return [_rounded(item) for item in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return float(f"{float(value):.6g}")
