"""Runs that are stopped, killed, locked or lied to, and go on as if nothing had happened."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import pytest

from foretrace.training import RunError, Stop, lock


def in_a_process(code, *words, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], **options)


HOLDS = """
import sys, time
from pathlib import Path
from foretrace.training import lock
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


def test_a_lock_in_a_folder_that_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"cannot be locked: No such file"), lock(tmp_path / "none"):
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
from foretrace.training import Stop
busy = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 2, jax.numpy.sin, x))
with Stop() as stop:
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
    with Stop() as stop:
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
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)
