"""Many runs on a local cluster of Ray: the same numbers, also where a worker is killed on the way."""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import types

import pytest

from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.scale import _ray

pytest.importorskip("ray")
COMMAND = "import sys; from foretrace.cli import main; sys.exit(main(sys.argv[1:]))"


def start(folder, *words, **environment):
    """Starts a command in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env=os.environ | {"RAY_ADDRESS": "local"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *words, **environment):
    process = start(folder, *words, **environment)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


def kill_one(process, parts):
    """Kills -9 the first worker that has saved a checkpoint and works on."""
    while process.poll() is None:
        for checkpoint in parts.glob("*/checkpoints/step-*/manifest.json"):
            holder = checkpoint.parents[2] / "lock"
            try:
                os.kill(json.loads(holder.read_text())["pid"], signal.SIGKILL)
            except (OSError, ValueError):
                continue
            return checkpoint.parents[2].name
        time.sleep(0.05)
    raise AssertionError(f"no worker was there to kill: {process.communicate()}")


def records(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


def leaves(value):
    """The numbers of a record, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value] if isinstance(value, int | float) else []


def test_a_comparison_gives_the_same_numbers_also_when_a_worker_is_killed(tmp_path):
    words = ["compare", "copy", "--learner", "ok:2/4", "--learner", "tbptt:4", "--seeds", "2"]
    words += ["--hidden", "8", "--lanes", "4", "--steps", "2000", "--chunk", "20"]
    run(tmp_path, *words, "--out", "here")
    process = start(tmp_path, *words, "--out", "tasks", "--engine", "ray", "--checkpoint-every", "20")
    killed = kill_one(process, tmp_path / "tasks" / "parts")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "2,000 of 2,000 steps" in out and "os.fork" not in err
    here, tasks = records(tmp_path / "here"), records(tmp_path / "tasks")
    assert [(r["learner"], r["step"]) for r in here] == [(r["learner"], r["step"]) for r in tasks]
    for mine, theirs in zip(here, tasks, strict=True):  # seeds side by side, or each alone: to rounding
        assert leaves(theirs) == pytest.approx(leaves(mine), rel=1e-2, abs=1e-3)
    # The one that was killed has every line once, as it would have without.
    steps = [record["step"] for record in records(tmp_path / "tasks" / "parts" / killed)]
    assert steps == list(range(20, 2001, 20))
    assert json.loads((tmp_path / "tasks" / "results.json").read_text()).keys() == {"ok:2/4", "tbptt:4"}


def table(path, series, rows):
    rng = random.Random(0)
    lines = ["time,meter,load"]
    for t in range(rows):
        for s in range(series):
            load = 10 + s % 7 + math.sin(t / 4 + s) + 0.1 * rng.random()
            lines.append(f"2026-01-{1 + t // 24:02d}T{t % 24:02d}:00,meter{s},{load:.4f}")
    path.write_text("\n".join(lines) + "\n")


def predictions(folder):
    """The lines of every series, in their order."""
    of_series = {}
    for line in (folder / "predictions.csv").read_text().splitlines():
        of_series.setdefault(line.partition(",")[0], []).append(line)
    return of_series


def test_a_fleet_of_two_hundred_is_forecast_as_by_one_process_also_when_a_worker_is_killed(tmp_path):
    table(tmp_path / "meters.csv", 200, 90)
    words = ["forecast", "meters.csv", "--target", "load", "--time", "time", "--series", "meter"]
    words += ["--horizon", "2", "--hidden", "4", "--checkpoint-every", "1"]
    run(tmp_path, *words, "--out", "here")
    process = start(tmp_path, *words, "--out", "tasks", "--engine", "ray", RAY_num_cpus="2")
    kill_one(process, tmp_path / "tasks" / "parts")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    here, tasks = predictions(tmp_path / "here"), predictions(tmp_path / "tasks")
    assert len(here) == 201 and tasks == here
    # What was gathered is a run like any other, and goes on without Ray.
    assert "18,000 rows of 200 series" in run(tmp_path, "resume", "tasks")
    assert predictions(tmp_path / "tasks") == here


def test_experiments_are_tasks(tmp_path):
    words = ["reproduce", "t-maze", "--seeds", "1", "--out", "records", "--engine", "ray"]
    process = start(tmp_path, *words)
    _, err = process.communicate(timeout=900)
    assert process.returncode in (0, 1) and "Traceback" not in err, err  # of one seed a claim may fail
    record = json.loads((tmp_path / "records" / "t-maze-quick.json").read_text())
    assert record["settings"]["seeds"] == 1 and record["result"]
    assert not list((tmp_path / "records").glob("*.parts*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "copy", "--engine", "dask"], "engine must be ray, or ray://HOST:PORT"),
        (
            ["forecast", "x.csv", "--target", "y", "--engine", "ray"],
            "engine must be left out but for a file",
        ),
        (["reproduce", "noise-size", "--engine", "spark"], "engine must be ray"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--out", "run"]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_without_ray_it_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = pytest.raises(UserError, match=r"pip install 'foretrace\[ray\]'")
    with refused, _ray.connected("ray", tmp_path):
        pass


def test_parts_of_a_fleet_begin_in_a_folder_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_ray, "connected", lambda engine, out: contextlib.nullcontext())
    (tmp_path / "meters.csv").write_text("id,y\na,1\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    words = "forecast meters.csv --target y --series id --engine ray --out run"
    assert main(words.split()) == 2
    assert "out must be a folder without a run; got 'run', which already" in capsys.readouterr().err


class NoCluster:
    """Stands for Ray: nobody answers, and a worker dies as often as it is started."""

    exceptions = types.SimpleNamespace(RayTaskError=type("Task", (Exception,), {}), RayError=MemoryError)

    def init(self, **_):
        raise ConnectionError("nobody is there")

    def get(self, reference):
        raise MemoryError


def test_a_cluster_that_does_not_answer_and_a_worker_that_dies_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", NoCluster())
    refused = pytest.raises(
        UserError, match="got 'ray://there:1': nobody is there; start one with ray start"
    )
    with refused, _ray.connected("ray://there:1", tmp_path):
        pass
    with pytest.raises(UserError, match=r"got ok-8 ended 21 times \(MemoryError\); give it memory"):
        _ray._result(NoCluster(), None, _ray.Part("ok-8", tmp_path, ()))


class Machines:
    """Stands for a cluster: what its machines answer when they are asked for a file."""

    def __init__(self, *answers):
        self.answers = answers
        self.util = self.scheduling_strategies = self
        self.NodeAffinitySchedulingStrategy = lambda node, soft: node

    def nodes(self):
        return [{"NodeID": i, "Alive": True} for i in range(len(self.answers))]

    def remote(self, **_):
        return lambda function: self

    def options(self, scheduling_strategy):
        self.node = scheduling_strategy
        return type("Task", (), {"remote": lambda _, token, node=self.node: self.answers[node]})()

    def get(self, answers):
        return answers


def test_a_machine_that_does_not_see_the_folder_or_has_other_versions_is_named(tmp_path):
    from foretrace.runs._config import versions

    same = versions()
    _ray._check_machines(Machines(("here", True, same), ("there", True, same)), tmp_path / "run")
    with pytest.raises(UserError, match=r"every machine of the cluster sees; got .*, which there does not"):
        _ray._check_machines(Machines(("here", True, same), ("there", False, same)), tmp_path / "run")
    other = same | {"jax": "0.1"}
    with pytest.raises(UserError, match=r"got jax 0.1 on there; install the same"):
        _ray._check_machines(Machines(("here", True, same), ("there", True, other)), tmp_path / "run")
    assert not list(tmp_path.iterdir())
