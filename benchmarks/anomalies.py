"""Anomalies in the labelled streams of the Numenta Anomaly Benchmark, scored by its own rule.

    python benchmarks/anomalies.py --nab DIR [--out FILE]

DIR has CSV files of the benchmark (columns `timestamp`, `value`) and its `combined_windows.json`; the files
that are there are scored. Every detector gives each row a score before it learns the row; one threshold for
all files is chosen per detector and profile, as the benchmark does, so that scores of any scale compare.
*Alone* is the score itself; *onset* is how far it exceeds all of the 400 rows before, so that a burst of
unusual rows is one detection and not hundreds.

The rule (Lavin, Ahmad, Evaluating real-time anomaly detection algorithms, ICMLA 2015; the constants are
those of the benchmark's code): the earliest detection within a window earns up to 1, the earlier the more;
a window without one costs 1, or 2 where misses weigh more; a detection outside costs up to 0.11, or 0.22
where false alarms weigh more, less just after a window. The first 15% of the rows, at most 750, do not
count. 100 is a perfect detector, 0 one that never says anything.
"""

import argparse
import csv
import datetime
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from river import anomaly, preprocessing, time_series

from foretrace import stream
from foretrace.experiments._bench import environment
from foretrace.river import RecurrentForecaster

MEMORY = 12  # rows over which the errors of a burst are added up
QUIET = 400  # rows that an onset exceeds


class Profile(NamedTuple):
    """What a false alarm and a missed window cost."""

    alarm: float
    miss: float


PROFILES = {"standard": Profile(0.11, 1), "few alarms": Profile(0.22, 1), "few misses": Profile(0.11, 2)}


class File(NamedTuple):
    """A stream: its name, its rows, and the first and last row of each labelled window."""

    name: str
    times: list[datetime.datetime]
    values: np.ndarray
    windows: list[tuple[int, int]]


def files(folder: Path) -> Iterator[File]:
    """The labelled streams of a folder."""
    labels = json.loads((folder / "combined_windows.json").read_text())
    by_name = {Path(name).name: windows for name, windows in labels.items()}
    for path in sorted(folder.glob("*.csv")):
        rows = list(csv.DictReader(path.open()))
        times = [datetime.datetime.fromisoformat(row["timestamp"]) for row in rows]
        place = {stamp: i for i, stamp in reversed(list(enumerate(times)))}
        ends = [
            [place[datetime.datetime.fromisoformat(end)] for end in pair] for pair in by_name[path.name]
        ]
        yield File(path.stem, times, np.array([float(row["value"]) for row in rows]),
                   [(first, last) for first, last in ends])  # fmt: skip


def scaled_sigmoid(position: float) -> float:
    """Value of a detection at a position: -1 the start of the window, 0 its end, above 0 behind it."""
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def worths(file: File) -> tuple[np.ndarray, np.ndarray]:
    """What a detection at each row is worth without weights, and the number of its window, -1 for none."""
    worth, number = np.full(len(file.values), -1.0), np.full(len(file.values), -1)
    for i, (first, last) in enumerate(file.windows):
        width = last - first + 1
        after = file.windows[i + 1][0] if i + 1 < len(file.windows) else len(worth)
        for row in range(first, last + 1):
            worth[row] = scaled_sigmoid(-(last - row + 1) / width) / scaled_sigmoid(-1)
        for row in range(last + 1, after):
            worth[row] = scaled_sigmoid((row - last) / (width - 1))
        number[first : last + 1] = i
    return worth, number


def probation(rows: int) -> int:
    """Rows at the beginning that do not count."""
    return int(0.15 * min(rows, 5000))


def total(
    data: list[File],
    values: list[tuple[np.ndarray, np.ndarray]],
    is_detected: list[np.ndarray],
    profile: Profile,
) -> float:
    """The benchmark's score, at most 100, of `worths` and flags of each file."""
    reached, windows = 0.0, 0
    for file, (worth, number), flags in zip(data, values, is_detected, strict=True):
        rows = np.flatnonzero(flags)
        rows = rows[rows >= probation(len(flags))]
        reached += profile.alarm * worth[rows[number[rows] < 0]].sum()
        for i in range(len(file.windows)):
            inside = worth[rows[number[rows] == i]]
            reached += inside.max() if len(inside) else -profile.miss
        windows += len(file.windows)
    return 100 * (reached + profile.miss * windows) / ((1 + profile.miss) * windows)


def best(data: list[File], scores: list[np.ndarray], profile: Profile) -> float:
    """The score at the best threshold."""
    values = [worths(file) for file in data]
    # More alarms than these cost more than all windows earn.
    largest = np.unique(np.concatenate([np.sort(each)[-1000:] for each in scores]))[::-1][:2000]
    return max(
        0.0, *(total(data, values, [each >= t for each in scores], profile) for t in largest.tolist())
    )


def foretrace_tails(file: File) -> np.ndarray:
    """How rare each error was among the last 1,000, with the defaults."""
    model = RecurrentForecaster()
    model.learn_many(file.values[:1])
    rows = np.zeros((len(file.values) - 1, 0, 2), np.float32), stream.pairs(file.values[1:])
    _, packed = stream.run_rows(model._compiled, model._state, *rows)
    return np.concatenate([[1.0], stream.ForecastResult.unpack(packed).tail])


def surprise(file: File) -> np.ndarray:
    """foretrace: the score of a row alone."""
    return 1 - foretrace_tails(file)


def burst(file: File) -> np.ndarray:
    """foretrace: the surprises of late added up, -log of each tail, forgotten over 12 rows."""
    level, levels = 0.0, []
    for tail in foretrace_tails(file):
        level += (-math.log(tail) - 1 - level) / MEMORY  # of usual errors the mean is 0
        levels.append(level)
    return np.array(levels)


def onset(scores: np.ndarray) -> np.ndarray:
    """How far each score exceeds all of the rows before it, of late."""
    padded = np.pad(scores, (QUIET, 0), mode="edge")
    before = np.lib.stride_tricks.sliding_window_view(padded, QUIET)[:-1].max(axis=1)
    return np.maximum(scores - before, 0)


def one_by_one(make: Callable[[], object], *, supervised: bool = False) -> Callable[[File], np.ndarray]:
    """A detector of River."""

    def run(file: File) -> np.ndarray:
        detector, scores = make(), []
        for value in file.values.tolist():
            row = (None, value) if supervised else ({"value": value},)
            scores.append(detector.score_one(*row))
            detector.learn_one(*row)
        return np.nan_to_num(np.array(scores, float))

    return run


DETECTORS: dict[str, Callable[[File], np.ndarray]] = {
    "foretrace, one row": surprise,
    "foretrace, bursts": burst,
    "River HalfSpaceTrees": one_by_one(
        lambda: preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1, n_trees=25, window_size=250)
    ),
    "River GaussianScorer": one_by_one(
        lambda: anomaly.GaussianScorer(window_size=1000, grace_period=100), supervised=True
    ),
    "River StandardAbsoluteDeviation": one_by_one(anomaly.StandardAbsoluteDeviation, supervised=True),
    "River PredictiveAnomalyDetection": one_by_one(
        lambda: anomaly.PredictiveAnomalyDetection(
            time_series.SNARIMAX(p=12, d=1, q=0), warmup_period=100
        ),
        supervised=True,
    ),
    "size of the change, nothing learned": lambda file: abs(np.diff(file.values, prepend=file.values[0])),
}  # fmt: skip


def main() -> None:
    """Scores every detector, prints the table, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nab", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    data = list(files(options.nab))
    print(", ".join(f"{file.name}: {len(file.values)} rows, {len(file.windows)} windows" for file in data))
    labels = [f"{label}, {kind}" for kind in ("alone", "onset") for label in PROFILES]
    print(f"| detector | {' | '.join(labels)} | rows per second |\n" + "|---" * (len(labels) + 2) + "|")
    record = {"environment": environment(), "files": [file.name for file in data], "scores": {}}
    for name, detect in DETECTORS.items():
        start = time.perf_counter()
        alone = [detect(file) for file in data]
        speed = sum(len(file.values) for file in data) / (time.perf_counter() - start)
        both = alone, [onset(each) for each in alone]
        reached = [best(data, scores, profile) for scores in both for profile in PROFILES.values()]
        record["scores"][name] = dict(zip(labels, reached, strict=True))
        print(f"| {name} | {' | '.join(f'{x:.1f}' for x in reached)} | {speed:,.0f} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
