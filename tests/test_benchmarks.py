"""The rules by which benchmarks judge, on cases that can be counted by hand."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("river")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.fixture
def anomalies(benchmark):
    return benchmark("anomalies")


def one_file(anomalies, *windows):
    return [anomalies.File("made", [], np.zeros(1000), list(windows))]


def scored(anomalies, data, rows, profile="standard"):
    flags = np.zeros(1000, bool)
    flags[list(rows)] = True
    values = [anomalies.worths(file) for file in data]
    return anomalies.total(data, values, [flags], anomalies.PROFILES[profile])


def test_the_score_of_detections(anomalies):
    data = one_file(anomalies, (400, 499), (800, 899))
    assert scored(anomalies, data, []) == 0
    assert scored(anomalies, data, [400, 800]) == pytest.approx(100)
    # Only the earliest in a window counts, and the middle of a window earns what the sigmoid says.
    half = (2 / (1 + np.exp(-2.5)) - 1) / (2 / (1 + np.exp(-5)) - 1)
    assert scored(anomalies, data, [450, 460, 800]) == pytest.approx(100 * (1 + (1 + half) / 2) / 2)
    # Far from any window an alarm costs its full price; just after one, less.
    assert scored(anomalies, data, [400, 800, 200]) == pytest.approx(100 - 100 * 0.11 / 4)
    after = scored(anomalies, data, [400, 800, 505])
    assert 100 - 100 * 0.11 / 4 < after < 100
    assert scored(anomalies, data, [400, 200], "few misses") == pytest.approx(100 * (1 - 2 - 0.11 + 4) / 6)


def test_the_beginning_does_not_count(anomalies):
    data = one_file(anomalies, (400, 499))
    assert scored(anomalies, data, [100, 149, 400]) == pytest.approx(100)


def test_the_best_threshold_is_found(anomalies):
    data = one_file(anomalies, (400, 499))
    scores = np.zeros(1000)
    scores[[300, 400]] = 1, 2
    assert anomalies.best(data, [scores], anomalies.PROFILES["standard"]) == pytest.approx(100)


def test_an_onset_exceeds_all_that_was_of_late(anomalies):
    scores = np.zeros(1000)
    scores[500:520] = 3
    onset = anomalies.onset(scores)
    assert np.flatnonzero(onset).tolist() == [500]
    assert onset[500] == 3


def test_rows_until_an_error_is_back(benchmark):
    drift = benchmark("drift")
    curve = np.ones(drift.BEFORE + drift.AFTER - 1)
    assert drift.recovery(curve) == (1, 0)
    curve[drift.BEFORE - 1 : drift.BEFORE + 99] = 5
    before, rows = drift.recovery(curve)
    assert before == 1
    assert 75 <= rows <= 100
