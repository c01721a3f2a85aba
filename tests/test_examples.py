"""The programs in examples/ run as their first lines say, at a small size; test_docs has the agent."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def shown(name, *words):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, words)]
    # Two virtual devices are a matter of the program's own.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_example_is_short():
    paths = sorted(EXAMPLES.glob("*.py"))
    assert len(paths) >= 6
    assert all(len(path.read_text().splitlines()) < 80 for path in paths)


@pytest.mark.parametrize(("name", "steps"), [("own_loop.py", 8000), ("flax_cell.py", 4000)])
def test_a_loop_learns(name, steps):
    if name == "flax_cell.py":
        pytest.importorskip("flax")
    first, last = re.search(r"first tenth ([\d.]+), last tenth ([\d.]+)", shown(name, steps)).groups()
    assert float(last) < 0.5 * float(first)


def test_a_loop_goes_on_bit_for_bit(tmp_path):
    shown("resume.py", 2, tmp_path / "stopped")
    resumed = shown("resume.py", 3, tmp_path / "stopped").splitlines()
    whole = shown("resume.py", 3, tmp_path / "whole").splitlines()
    assert len(resumed) == 1 and resumed == whole[2:]


def test_two_devices_give_the_same_gradient():
    devices, apart = re.search(
        r"on (\d) devices; gradients differ by (\S+)", shown("two_devices.py")
    ).groups()
    assert devices == "2" and float(apart) < 1e-5


def test_the_stream_is_forecast_beside_persistence():
    pytest.importorskip("river")
    ours, rule = re.search(r"error ([\d.]+), persistence ([\d.]+)", shown("stream.py")).groups()
    assert float(ours) < 1.1 * float(rule)
