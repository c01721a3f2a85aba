"""Runs that are stopped, killed, locked or lied to, and go on as if nothing had happened."""

import contextlib
import errno
import json
import os
import platform
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from foretrace.cli import main
from foretrace.cli.train import data_of
from foretrace.runs import checkpoint
from foretrace.runs._folder import SaveInterval, open_run
from foretrace.runs._lock import RunError, lock
from foretrace.runs._progress import Reporter
from foretrace.runs._signals import StopSignal


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(tmp_path_factory):
    """Adam of optax mixes dtypes, which the other tests forbid; what was compiled once is kept."""
    cache = str(tmp_path_factory.mktemp("cache"))
    kept = {"jax_compilation_cache_dir": cache, "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in kept}
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        for name, value in kept.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)


def in_a_process(code, *words, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], **options)


HOLDS = """
import sys, time
from pathlib import Path
from foretrace.runs._lock import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(100)
"""


def test_a_second_process_is_refused_and_a_killed_one_taken_over(tmp_path):
    with in_a_process(HOLDS, tmp_path) as holder:
        assert holder.stdout.readline() == "locked\n"
        held = (
            rf"used by process {holder.pid} on {platform.node()}, started at 20.*; wait for it or stop it"
        )
        with pytest.raises(RunError, match=held), lock(tmp_path):
            pass
        holder.kill()
    content = json.loads((tmp_path / "lock").read_text())
    assert (content["pid"], content["host"]) == (holder.pid, platform.node())
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(RunError, match="is used by process"), lock(tmp_path):
            pass
        assert (tmp_path / "lock").exists(), "who was refused takes nothing away"
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_host_has_to_be_removed_by_hand(tmp_path):
    (tmp_path / "lock").write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": "then"}))
    refused = r"process 7 on elsewhere, started at then; if it is over, remove '.*lock'"
    with pytest.raises(RunError, match=refused), lock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "\x00" * 100])
def test_half_a_lock_is_taken_over(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_cannot_be_written_is_refused_and_a_removed_folder_stays_removed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be locked: "), lock(tmp_path / "file"):
        pass
    folder = tmp_path / "run"
    folder.mkdir()
    with lock(folder):
        shutil.rmtree(folder)
    assert not folder.exists()


COMPUTES = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import jax
from foretrace.runs._signals import StopSignal
busy = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 2, jax.numpy.sin, x))
with StopSignal() as stop:
    print("ready", flush=True)
    busy(1.0).block_until_ready()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once_even_inside_compiled_code(number):
    with in_a_process(COMPUTES) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        child.send_signal(number)
        assert child.stderr.readline() == "\n"
        assert "stopping after this chunk" in child.stderr.readline()
        assert child.poll() is None
        child.send_signal(number)
        assert child.wait(timeout=5) == 128 + number


def test_a_signal_is_a_wish_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        end = time.monotonic() + 5
        while stop.signal is None and time.monotonic() < end:
            time.sleep(0.01)
        assert stop.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_the_parent_told_to_ignore_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


SMALL = ["--hidden", "4", "--lanes", "2", "--chunk", "20", "--block", "4", "--learner", "uoro"]


class Crash(BaseException):
    """What stands for kill -9 where a process would be slow to start: nothing may be done about it."""


def train(*words):
    return main(["train", "copy", *SMALL, *map(str, words)])


def crash_at(monkeypatch, step, do=None):
    """Ends the next run when it shows this step; `do` is done before."""
    show = Reporter.show

    def crash(self, record):
        show(self, record)
        if record["step"] == step:
            if do:
                do()
            else:
                raise Crash

    monkeypatch.setattr(Reporter, "show", crash)


def lines_of(folder):
    """The metrics without what a clock says."""
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n") or not text
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        del record["seconds"]
    return records


def assert_same_run(folder, whole):
    """Bit for bit the same run: every line of metrics, and every byte of the last checkpoint's state."""
    assert lines_of(folder) == lines_of(whole)
    last, like = (max(checkpoint.steps(path / "checkpoints").values()) for path in (folder, whole))
    assert last.name == like.name
    assert (last / "state.safetensors").read_bytes() == (like / "state.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 200 steps that nothing happened to; to resume where nothing is, is to begin."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train("--steps", 200, "--out", folder, "--resume") == 0
    return folder


def test_a_run_leaves_its_last_state_and_no_lock(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "curve.png", "report.html", "checkpoints"}
    assert 200 in checkpoint.steps(whole / "checkpoints")
    assert [record["step"] for record in lines_of(whole)] == list(range(20, 201, 20))


def test_a_run_that_crashed_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys, whole):
    folder = tmp_path / "run ✓"
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, 100)
        train("--steps", 200, "--checkpoint-every", 40, "--out", folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 120, "half a li')
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "goes on from step 80" in out
    assert err == ""
    assert_same_run(folder, whole)
    assert (folder / "curve.png").read_bytes() == (whole / "curve.png").read_bytes()
    before = sorted(folder.rglob("*"))
    assert main(["resume", str(folder)]) == 0
    assert "goes on from step 200" in capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before
    assert_same_run(folder, whole)


def test_a_damaged_checkpoint_is_reported_and_the_run_is_the_same(tmp_path, monkeypatch, capsys, whole):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, 100)
        train("--steps", 200, "--checkpoint-every", 20, "--out", folder)
    newest = max(checkpoint.steps(folder / "checkpoints").values()) / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    capsys.readouterr()
    assert train("--steps", 200, "--checkpoint-every", 20, "--out", folder, "--resume") == 0
    out, err = capsys.readouterr()
    assert err.startswith("foretrace: warning: checkpoint ")
    assert "leaf " in err
    assert err.count("\n") == 1
    assert "goes on from step 60" in out
    assert_same_run(folder, whole)


def test_metrics_that_were_changed_are_reported_and_their_whole_lines_kept(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:-2]) + lines[-1][:10])
    assert main(["resume", str(folder)]) == 0
    assert "metrics.jsonl' is not what it was when step 200 was saved" in capsys.readouterr().err
    assert (folder / "metrics.jsonl").read_text() == "".join(lines[:-2])


DIFFERENT = {
    "--hidden 5 --cell rnn --seed 1": [
        "hidden: 4 there, 5 now", "cell: highway there, rnn now", "seed: 0 there, 1 now",
    ],
    "--learner kf_rtrl --steps 400 --chunk 40": [
        "learner: uoro there, kf_rtrl now", "steps: 200 there, 400 now", "chunk: 20 there, 40 now",
    ],
}  # fmt: skip


def test_another_configuration_is_refused_with_what_differs(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for words, differ in DIFFERENT.items():
        assert train("--steps", 200, "--out", folder, "--resume", *words.split()) == 2
        err = capsys.readouterr().err
        assert err.startswith("foretrace: options must be those of the run in ")
        assert all(difference in err for difference in differ)
        assert err.count(" there, ") == 3
        assert err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_incompatible_version_is_refused_and_another_jax_reported(tmp_path, capsys, monkeypatch, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["versions"]["jax"] = "0.0.1"
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(folder)]) == 0
    assert "jax 0.0.1 there" in capsys.readouterr().err
    config["versions"]["foretrace"] = "99.0"
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(folder)]) == 2
    assert "foretrace: 99.0 there" in capsys.readouterr().err


def test_another_data_file_is_refused_and_a_moved_one_is_not(tmp_path):
    def opened(name):
        path = tmp_path / name
        data = data_of(SimpleNamespace(file=path, valid=None))
        return open_run(tmp_path / "run", {"file": str(path), "data": data}, interval, resume=True)

    interval = SaveInterval.parse("10m")
    (tmp_path / "text").write_text("one")
    with opened("text"):
        pass
    (tmp_path / "text").rename(tmp_path / "moved")
    with opened("moved"):
        pass
    (tmp_path / "moved").write_text("another")
    with pytest.raises(ValueError, match=r"others \(data: \{'file': '7692c3"), opened("moved"):
        pass


def test_a_comparison_that_was_killed_goes_on_after_its_finished_learners(tmp_path, capsys):
    out = tmp_path / "cmp"
    learners = ["--learner", "uoro", "--learner", "tbptt:4", "--seeds", "2"]
    assert main(["compare", "copy", "--steps", "40", *SMALL[:-2], *learners, "--out", str(out)]) == 0
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line)["learner"] for line in lines] == ["uoro"] * 2 + ["tbptt:4"] * 2
    # Killed in the second chunk of the second learner, and in the middle of a line.
    (out / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    (out / "comparison.png").unlink()
    capsys.readouterr()
    assert main(["resume", str(out)]) == 0
    again = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert again[:2] == lines[:2]
    for old, new in zip(map(json.loads, lines[2:]), map(json.loads, again[2:]), strict=True):
        assert old | {"seconds": 0} == new | {"seconds": 0}
    assert (out / "comparison.png").exists() and not (out / "lock").exists()


BROKEN_FOLDERS = {
    "nothing": "run must be a folder with a run; got ",
    "empty": "run must be a folder with a run; got ",
    "damaged": "run must have a config.json that can be read and",
    "numbers": "run must have a config.json that can be read and",
}


@pytest.mark.parametrize(("name", "message"), BROKEN_FOLDERS.items())
def test_what_is_no_run_cannot_be_resumed(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "config.json").write_text('{"command": ["train", 3]}')
    assert main(["resume", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"foretrace: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EBADF])
def test_an_error_without_a_file_is_of_the_run_folder_only_where_a_disk_has_it(tmp_path, number):
    kind = RunError if number == errno.ENOSPC else OSError
    with pytest.raises(OSError) as caught, open_run(tmp_path, {}, resume=False):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


def test_a_save_interval_that_is_none_is_refused(tmp_path, capsys):
    for text in ("0", "0m", "ten", "-5", "10h", "1e9"):
        assert train(f"--checkpoint-every={text}", "--out", tmp_path / "run") == 2
        assert "checkpoint_every must be steps, such as 100000, or" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_is_deleted_stops_the_run_with_exit_code_1(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    crash_at(monkeypatch, 60, lambda: shutil.rmtree(folder))
    assert train("--steps", 200, "--out", folder) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"foretrace: run folder '{folder}' cannot be used any more: No such file")
    assert err.count("\n") == 1
    assert not folder.exists()


def test_a_disk_that_is_full_stops_the_run_with_exit_code_1_and_it_goes_on_later(
    tmp_path, monkeypatch, capsys, whole
):
    folder = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    with monkeypatch.context() as patch:
        crash_at(patch, 100, fill)
        try:
            assert train("--steps", 200, "--checkpoint-every", 40, "--out", folder) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert "File too large" in err
    assert err.count("\n") == 1
    assert main(["resume", str(folder)]) == 0
    assert_same_run(folder, whole)


def test_a_folder_in_use_is_refused_with_exit_code_1(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    with lock(folder):
        assert main(["resume", str(folder)]) == 1
    assert f"is used by process {os.getpid()}" in capsys.readouterr().err


def test_numbers_that_overflow_stop_the_run_at_its_last_good_state(tmp_path, capsys):
    folder = tmp_path / "run"
    words = (
        "--steps",
        200,
        "--out",
        folder,
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e38",
        "--clip",
        "1e38",
    )
    assert train(*words) == 1
    err = capsys.readouterr().err
    assert re.match(r"foretrace: \w+ must be finite; got a number that is not at step \d+; go on from", err)
    found = checkpoint.steps(folder / "checkpoints")
    assert found
    assert max(found) == max([0, *(record["step"] for record in lines_of(folder))])


RUN = """
import signal, sys
from foretrace.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def lines_there(folder):
    file = folder / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def started(folder, *words):
    """A run in a process of its own that has written metrics."""
    before = lines_there(folder)
    child = in_a_process(RUN, *words)
    while child.poll() is None and lines_there(folder) <= before:
        time.sleep(0.01)
    return child


def test_a_signal_stops_after_the_chunk_with_everything_saved(tmp_path):
    folder = tmp_path / "a run"
    words = ["train", "copy", *SMALL, "--steps", 10**8, "--out", folder]
    before = 0
    for number, command in [(signal.SIGTERM, words), (signal.SIGINT, ["resume", folder])]:
        child = started(folder, *command)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 128 + number, err
        assert err == "\nforetrace: stopping after this chunk; once more to exit at once.\n"
        steps = [record["step"] for record in lines_of(folder)]
        again = f"foretrace resume {shlex.quote(str(folder))}"
        assert out.endswith(f"stopped at step {steps[-1]:,}; go on with: {again}\n")
        assert steps == list(range(20, steps[-1] + 1, 20))
        assert max(checkpoint.steps(folder / "checkpoints")) == steps[-1] > before
        assert not (folder / "lock").exists()
        before = steps[-1]


def kill_while_training(folder, seed, times):
    """Kills at random moments and goes on, then stops: the run is the uninterrupted one."""
    moments = random.Random(seed)
    steps = 10**8
    words = ["train", "copy", *SMALL, "--steps", steps, "--checkpoint-every", 100, "--out"]
    for _ in range(times):
        child = started(folder, *words, folder, "--resume")
        time.sleep(moments.uniform(0, 0.3))
        child.kill()
        _, err = child.communicate()
        assert child.returncode == -signal.SIGKILL, err
        assert err == ""
    child = started(folder, *words, folder, "--resume")
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    return lines_of(folder)


def assert_uninterrupted(folder, whole):
    """A run of the same options that nothing happened to has the same lines and saves the same bytes."""
    last = max(checkpoint.steps(folder / "checkpoints"))
    words = ["train", "copy", *SMALL, "--steps", 10**8, "--checkpoint-every", last, "--out", whole]
    child = started(whole, *words)
    while child.poll() is None and last not in checkpoint.steps(whole / "checkpoints"):
        time.sleep(0.05)
    child.kill()
    child.communicate()
    lines = lines_of(folder)
    assert [line["step"] for line in lines] == list(range(20, last + 1, 20))
    text = (whole / "metrics.jsonl").read_text().splitlines()[: len(lines)]
    for line, other in zip(lines, map(json.loads, text), strict=True):
        del other["seconds"]
        assert line == other
    state, other = (
        path / "checkpoints" / f"step-{last:012d}" / "state.safetensors" for path in (folder, whole)
    )
    assert state.read_bytes() == other.read_bytes()


def test_kill_9_while_training_leaves_the_same_run(tmp_path):
    kill_while_training(tmp_path / "killed", seed=0, times=1)
    assert_uninterrupted(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_kill_9_while_training_50_times(tmp_path):
    kill_while_training(tmp_path / "killed", seed=1, times=50)
    assert_uninterrupted(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_million_steps_with_flat_memory_and_finite_numbers(tmp_path):
    folder = tmp_path / "run"
    words = ["train", "copy", *SMALL, "--chunk", 500, "--steps", 10**6, "--out", folder]
    child = started(folder, *words)
    sizes = []
    while child.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            sizes.append(pages * resource.getpagesize() / 1e6)
        time.sleep(0.2)
    _, err = child.communicate()
    assert child.returncode == 0, err
    # The last few are drawing the curve.
    training_sizes = sizes[len(sizes) // 5 : -10]
    assert len(training_sizes) > 20
    assert max(training_sizes) - min(training_sizes) < 10, "megabytes"
    lines = lines_of(folder)
    assert lines[-1]["step"] >= 10**6
    assert np.isfinite([[line["bits"], line["gradient_norm"], line["influence"]] for line in lines]).all()
