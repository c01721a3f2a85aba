"""A run ends with everything saved, whatever ends it, and any run goes on by `foretrace resume`."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys

import jax
import pytest

from foretrace import forecast as library
from foretrace.cli import main
from foretrace.cli._output import output_may_end
from foretrace.runs import checkpoint
from foretrace.runs._signals import StopSignal

TRAIN = [
    "train",
    "adding",
    "--hidden",
    "4",
    "--lanes",
    "2",
    "--learner",
    "ok:2",
    "--chunk",
    "20",
    "--steps",
    "60",
]

COMMAND = "import sys; from foretrace.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Broken(io.StringIO):
    """A stream of which only the first texts arrive."""

    encoding = "utf-8"

    def __init__(self, error, good=3):
        super().__init__()
        self.error, self.good = error, good

    def write(self, text):
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().write(text)

    def flush(self):
        if self.good < 0:
            raise self.error


GONE = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    ValueError("I/O operation on closed file."),
]


@pytest.mark.parametrize("error", GONE, ids=lambda error: str(error)[-12:])
def test_output_that_ends_is_said_once_and_is_no_error(monkeypatch, capsys, error):
    monkeypatch.setattr(sys, "stdout", broken := Broken(error))
    with output_may_end():
        for number in range(9):
            print(number)
    assert broken.getvalue() == "0\n1"
    assert capsys.readouterr().err == (
        f"foretrace: warning: standard output cannot be written any more: "
        f"{getattr(error, 'strerror', error)}; the command goes on.\n"
    )


def test_a_forecast_outlives_its_output_and_its_errors(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("y\n" + "".join(f"{i % 4}\n" for i in range(30)))
    monkeypatch.setattr(sys, "stdout", Broken(GONE[0], 0))
    monkeypatch.setattr(sys, "stderr", Broken(GONE[0], 0))
    words = ["forecast", tmp_path / "a.csv", "--target", "y", "--hidden", 4, "--out", tmp_path / "out"]
    assert main(list(map(str, words))) == 0
    assert max(checkpoint.steps(tmp_path / "out" / "checkpoints")) == 30


def test_output_that_was_closed_from_the_start_and_letters_that_it_lacks_are_no_error(monkeypatch):
    for stream in (None, io.TextIOWrapper(raw := io.BytesIO(), "ascii")):
        monkeypatch.setattr(sys, "stdout", stream)
        with output_may_end():
            print("3 ± 1")
        assert sys.stdout is stream
    assert raw.getvalue() == b"3 ? 1\n"


def test_a_reader_that_has_seen_enough_leaves_a_whole_run(tmp_path):
    start = [sys.executable, "-c", COMMAND, *TRAIN, "--out", str(tmp_path / "run")]
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(start, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(write)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.endswith("cannot be written any more: Broken pipe; the command goes on.\n")
    assert ended.stderr.count("\n") == 1
    assert max(checkpoint.steps(tmp_path / "run" / "checkpoints")) >= 60


@pytest.fixture
def no_signal_ignored():
    """A shell ignores some for its background, and StopSignal leaves those alone."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("no_signal_ignored")
@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU]
)
def test_every_signal_that_can_be_caught_saves(tmp_path, number):
    lines = ["y\n", *(f"{i % 4}\n" for i in range(40))]
    with StopSignal() as stop:
        forecasts = library.forecast_file(
            iter(lines), target="y", hidden=4, out=tmp_path / "out", stop=stop
        )
        for row in forecasts:
            if row.time == "20":
                signal.raise_signal(number)
                signal.raise_signal(signal.SIGHUP)  # as a shell and the system do, one after the other
        assert stop.signal == number
    assert forecasts.learned == 20
    assert max(checkpoint.steps(tmp_path / "out" / "checkpoints")) == 20


def test_a_signal_just_before_a_wait_ends_it():
    with StopSignal(interrupt_waits=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.wait():
            pytest.fail("waits")


def predictions(folder):
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


@pytest.mark.parametrize("begun_by", ["command", "python"])
def test_a_forecast_goes_on_by_resume(tmp_path, monkeypatch, capsys, begun_by):
    rows = [f"{i},{i % 4},{i % 3}\n" for i in range(40)]
    data, out = tmp_path / "a.csv", tmp_path / "out"
    data.write_text("".join(["t,y,a\n", *rows[:25]]))
    monkeypatch.chdir(tmp_path)
    if begun_by == "command":
        words = [
            "a.csv",
            "--target",
            "y",
            "--time",
            "t",
            "--features",
            "a",
            "--hidden",
            "4",
            "--out",
            "out",
        ]
        assert main(["forecast", *words, "--learning-rate", "1e-05"]) == 0
    else:
        options = {"target": "y", "time": "t", "features": ["a"], "hidden": 4, "learning_rate": 1e-5}
        list(library.forecast_file("a.csv", out="out", **options))
    data.write_text("".join(["t,y,a\n", *rows]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for _ in range(2):  # the second time nothing is new
        assert main(["resume", str(out), "--gaps", "ignore"]) == 0
        assert [row["actual"] for row in predictions(out)] == [str(i % 4) for i in range(1, 40)] + [""]
    assert "goes on after row 25" in capsys.readouterr().out


def test_a_live_forecast_goes_on_by_resume(tmp_path, monkeypatch):
    words = ["forecast", "-", "--target", "y", "--hidden", "4", "--out", str(tmp_path / "out")]
    for command, text in [(words, "y\n1\n2\n"), (["resume", str(tmp_path / "out")], "y\n3\n")]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert main(command) == 0
    assert [row["actual"] for row in predictions(tmp_path / "out")] == ["2", "3", ""]


def test_a_run_that_a_program_feeds_is_left_to_the_program(tmp_path, capsys):
    list(library.forecast_file(["y", "1", "2"], target="y", hidden=4, out=tmp_path / "out"))
    assert main(["resume", str(tmp_path / "out")]) == 2
    assert "go on by forecast_file(.., resume=True) in that program" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_said_and_all_is_saved(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("y\n1\n2\n3\n")
    (tmp_path / "out" / "forecast.png").mkdir(parents=True)
    words = ["forecast", tmp_path / "a.csv", "--target", "y", "--hidden", 4, "--out", tmp_path / "out"]
    assert main(list(map(str, words))) == 2
    assert "all is saved" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["target"] == "y"
    assert max(checkpoint.steps(tmp_path / "out" / "checkpoints")) == 3
