"""The installed command, as a user runs it."""

import functools
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from foretrace import cells, experiments
from foretrace._checks import UserError
from foretrace.cli import _parse, data, main, train
from foretrace.cli._tasks import options_for
from foretrace.experiments import _timing

COMMAND = Path(sys.executable).parent / "foretrace"
SMALL = ["--hidden", "4", "--lanes", "2", "--steps", "40", "--chunk", "20", "--block", "4"]
PNG = b"\x89PNG\r\n\x1a\n"


def foretrace(*words, cwd):
    return subprocess.run(
        [COMMAND, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "120"},
    )


def test_version():
    shown = foretrace("--version", cwd=".")
    assert re.fullmatch(r"foretrace \d+\.\d+\.\d+\n", shown.stdout)
    assert shown.returncode == 0


@pytest.mark.parametrize("words", ["--help", "train copy --help", "compare copy --help"])
def test_help_shows_how_to_call(words):
    shown = foretrace(*words.split(), cwd=".")
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert "foretrace compare copy" in shown.stdout or "foretrace train copy" in shown.stdout


def test_train_says_what_it_does_and_leaves_a_run_folder(tmp_path):
    shown = foretrace("train", "copy", *SMALL, "--learner", "ok:2", "--out", "runs/one", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    plan = shown.stdout.splitlines()[:5]
    assert plan[1].startswith("highway, 4 units: 72 parameters in 1 Kronecker group")
    assert re.match(r"ok:2, block 4: \S+ k?B of influence and window, \S+ kFLOP per step", plan[2])
    assert "ok:2, 40 steps: T = 1, " in shown.stdout
    folder = tmp_path / "runs" / "one"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "metrics.jsonl", "curve.png", "report.html", "checkpoints",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert (config["learner"], config["hidden"], config["update_every"]) == ("ok:2", 4, 1)
    assert set(config["versions"]) == {"foretrace", "jax", "optax", "python", "device"}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [20, 40]
    assert set(records[0]) >= {"bits", "T", "raised", "gradient_norm", "seconds", "info"}
    assert 0 < records[0]["bits"] < 2.1
    assert (folder / "curve.png").read_bytes().startswith(PNG)

    full = foretrace("train", "copy", *SMALL, "--out", "runs/one", cwd=tmp_path)
    assert_refused(full, "out must be a folder without a run; got 'runs/one'")

    foretrace("train", "copy", *SMALL[:-2], "--learner", "ok:2/4", cwd=tmp_path)
    lines = (tmp_path / "runs" / "copy-ok-2-4" / "metrics.jsonl").read_text().splitlines()
    again = [json.loads(line) for line in lines]
    assert [record["bits"] for record in again] == [record["bits"] for record in records]


def test_compare_leaves_a_table_and_a_picture(tmp_path):
    learners = ["--learner", "ok", "--learner", "tbptt:4", "--learner", "ok:8", "--cell", "lstm"]
    words = ["compare", "copy", *SMALL, *learners, "--seeds", 2, "--out", "cmp"]
    shown = foretrace(*words, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"ok:8 .*1\.0 ± 0\.0", shown.stdout)
    assert re.search(r"tbptt:4 .*1\.0 ± 0\.0", shown.stdout)
    results = json.loads((tmp_path / "cmp" / "results.json").read_text())
    assert list(results) == ["ok:8", "tbptt:4"]
    assert len(results["ok:8"]["bits"]) == len(results["ok:8"]["T"]) == 2
    assert len((tmp_path / "cmp" / "metrics.jsonl").read_text().splitlines()) == 4, "each learner once"
    assert (tmp_path / "cmp" / "comparison.png").read_bytes().startswith(PNG)


def assert_refused(shown, message):
    """Exit code 2 and one line on stderr."""
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"foretrace: {message}")
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.endswith(".\n")


BAD_INPUT = {
    "train copy --learner nosuch": "learner must be one of rtrl, ",
    "train copy --learner ok:0": "rank must be an int >= 1; got 0",
    "train copy --learner rflo*2": "copies must be 1 for rflo, which is biased; got 2; leave them out.",
    "train copy --learner ok:99999999999999": "memory must hold ok:99999999999999/64 twice, ",
    "train copy --lanes 1000000000": "memory must hold ok:8/16 twice, ",
    "train copy --hidden 1000000": "memory must hold the network twice, ",
    "train copy --learner ok:two": "learner must be NAME:NUMBER/BLOCK+AGE*COPIES with ints",
    "train copy --learner rtrl:3": "rtrl has no number; got 'rtrl:3'",
    "train copy --learner tbptt:0": "window must be an int >= 1; got 0",
    "train copy --lanes 0": "lanes must be an int >= 1; got 0; 1 is a single stream.",
    "train copy --lanes many": "--lanes must be an int; got 'many'",
    "train copy --steps 0": "steps must be an int >= 1; got 0",
    "train copy --chunk 0": "chunk must be an int >= 1; got 0",
    "train copy --hidden 0": "hidden must be an int >= 1; got 0",
    "train copy --block 0": "block must be an int >= 1; got 0",
    "train copy --update-every 0": "update_every must be an int >= 1; got 0",
    "train copy --block 4 --update-every 3": "update_every must divide the block length 4",
    "train copy --learning-rate nan": "learning_rate must be a number > 0; got nan",
    "train copy --clip 0": "clip must be a number > 0; got 0.0; None is for no clipping.",
    "train copy --seed -1": "seed must be an int from 0",
    "train copy --cell nosuch": "--cell must be one of diagonal, elstm, gru, ",
    "train copy --nosuch 3": "option must be one of those that this command has; got '--nosuch'",
    "train nosuch": "task must be one of copy, text, anbn, brackets, adding, rotation, balance; got",
    "nosuch": "command must be one of train, resume, compare, ",
    "train text --file nosuch.txt --reset -1": "reset must be an int >= 0; got -1; the papers have 100.",
    "train text --file nosuch.txt": "file must be a text file; got 'nosuch.txt': No such file",
    "train anbn --longest 0": "longest must be an int >= 1; got 0",
    "train brackets --gap 3 2": "gap must be two ints, 0 <= least <= largest; got (3, 2)",
    "train adding --near 10": "near must be an int >= 0 and below far; got 10 and 10",
    "train balance --hidden 3": "option must be one of those that this command has; got '--hidden'",
    "train balance --decay -1": "decay must be a number >= 0; got -1.0",
    "train copy --clip=much": "--clip must be a number or None; got 'much'",
    "train copy --block some": "--block must be an int or auto; got 'some'",
    "train brackets --gap 3 wide": "--gap must be an int; got 'wide'",
    "train copy --checkpoint-every 0": "checkpoint_every must be steps, such as 100000, or",
    "train copy --update-every": "--update-every must be an int; got nothing; see foretrace train copy",
    "train copy --out=": "--out must be a path; got ''; see foretrace train copy --help.",
    "train copy --resume yes": "option must begin with --; got 'yes'; see foretrace train copy --help.",
    "train text": "--file must be given; got none; see foretrace train text --help.",
    "resume": "run must be given; got none; see foretrace resume --help.",
    "resume a b": "option must begin with --; got 'b'; see foretrace resume --help.",
    "resume a --on-nonfinite go": "--on-nonfinite must be one of stop, skip; got 'go'; see foretrace",
    "learners x": "option must begin with --; got 'x'; see foretrace learners --help.",
    "explain gruu": "cell must be one of diagonal, elstm, gru, ",
    "forecast": "data must be given; got none; see foretrace forecast --help.",
    "resume nosuch": "run must be a folder with a run; got 'nosuch'",
    "explain gru --hidden 1000000": "memory must hold the network twice, ",
    "explain gru --memory 0": "memory must be a number > 0; got 0",
    "reproduce nosuch": "experiment must be one of ",
    "data nosuch": "data set must be one of ptb; got 'nosuch'",
    "forecast nosuch.csv --target a": "data must be ",
    "compare copy --seeds 0": "seeds must be an int from 1",
    "compare copy --learner ok:2 --learner nosuch": "learner must be one of",
}


def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, capsys, monkeypatch):
    # In this process: the command has been shown to run, and starting it thirty times is slow.
    monkeypatch.chdir(tmp_path)
    for words, message in BAD_INPUT.items():
        code = main(words.split())
        out, err = capsys.readouterr()
        assert_refused(subprocess.CompletedProcess(words, code, out, err), message)
        assert out == "", words
        assert list(tmp_path.iterdir()) == [], words


def test_whatever_tyro_draws_becomes_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def refuse(*args, **options):
        print("no box\nat all", file=sys.stderr)
        raise SystemExit(2)

    monkeypatch.setattr(_parse.tyro, "cli", refuse)
    assert main(["train", "copy"]) == 2
    assert capsys.readouterr().err == "foretrace: no box at all; see foretrace train copy --help.\n"


def test_a_bug_keeps_its_traceback_and_exits_with_1(tmp_path):
    code = """
import sys
from foretrace.cli import learners, main
learners.run = lambda words: None + 1
sys.exit(main(["learners"]))
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback (most recent call last):")
    assert "TypeError: unsupported operand" in shown.stderr


def test_a_bug_in_a_cell_is_no_sentence(monkeypatch):
    def broken(**sizes):
        return cells.rnn(**sizes)._replace(step=lambda params, hidden, x: hidden + None)

    monkeypatch.setitem(cells.CELLS, "rnn", broken)
    with pytest.raises(TypeError, match=r"Raised by the cell's step, for params") as caught:
        main(["explain", "rnn"])
    assert not isinstance(caught.value, UserError)


def test_the_keyboard_ends_any_command_with_130(capsys, monkeypatch):
    def press(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("foretrace.cli.learners.run", press)
    assert main(["learners"]) == 130
    assert capsys.readouterr().err == "foretrace: stopped by the keyboard.\n"


@pytest.mark.parametrize("package", ["tyro", "rich", "matplotlib"])
def test_without_the_extra_the_command_says_how_to_install_it(package, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; from foretrace.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", "copy"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert_refused(shown, f"{package} must be installed for this; got none; pip install 'foretrace[cli]'")


def test_everything_loads_where_there_is_no_fcntl(tmp_path):
    code = """
import importlib, sys, warnings
sys.modules["fcntl"] = None
import foretrace as ft
from foretrace.cli import _main
for name in _main.COMMANDS:
    importlib.import_module(f"foretrace.cli.{name}")
ft.save("saved", {"a": 1})
assert ft.load("saved", like={"a": 0}) == {"a": 1}
warnings.simplefilter("ignore")  # of filelock, that it has no lock of the system
sys.exit(_main.main(["train", "copy", *sys.argv[1:]]))
"""
    words = [*SMALL, "--learner", "uoro", "--steps", "20", "--out", "run"]
    shown = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr


def test_bad_input_leaves_no_traceback_in_the_installed_command(tmp_path):
    shown = foretrace("train", "copy", "--learner", "ok:0", cwd=tmp_path)
    assert_refused(shown, "rank must be an int >= 1; got 0")
    assert list(tmp_path.iterdir()) == []


UNWRITABLE = {
    "train copy --steps 20 --out file/run": "out must be a folder that can be written; got 'file/run'",
    "compare copy --steps 20 --out file/run": "out must be a folder that can be written; got 'file/run'",
    "reproduce noise-size --out file/run": "out must be a folder that can be written; got 'file/run'",
    "bench rnn-256 --out file/a.json": "out must be a new file in a folder that exists",
    "data ptb --dir file/data": "dir must be a folder that can be written; got 'file/data'",
}


@pytest.mark.parametrize("words", UNWRITABLE)
def test_an_out_that_cannot_be_written_is_one_sentence(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    code = main(words.split())
    assert_refused(subprocess.CompletedProcess([], code, *capsys.readouterr()), UNWRITABLE[words])


def test_the_keyboard_stops_a_run_with_exit_code_130(tmp_path):
    # A process started in the background of a shell ignores the keyboard; this one must not.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = listen + "from foretrace.cli import main; sys.exit(main())"
    words = ["train", "copy", *SMALL, "--learner", "tbptt:4", "--steps", "100000000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopping after this chunk" in err


BENCH_REFUSALS = {
    "bench nosuch": "setting must be one of rnn-256, highway-128",
    "bench --repeats 0": "repeats must be an int from 1 to 1000; got 0",
    "bench --out no/such/folder/a.json": "out must be a new file in a folder that exists",
    "bench --compare no.json no.json": "compare must name two files that foretrace bench wrote; got no",
}


@pytest.mark.parametrize("words", BENCH_REFUSALS)
def test_bench_refuses_bad_input_in_one_sentence(words, capsys):
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert BENCH_REFUSALS[words] in said
    assert len(said.splitlines()) == 1


def test_a_device_that_jax_does_not_have_is_refused():
    with pytest.raises(UserError, match="device must be one that JAX has here; got 'tpu'; install JAX for"):
        experiments.choose_device("tpu")


def test_bench_writes_a_record_that_compare_reads(tmp_path, capsys, monkeypatch):
    tiny = experiments.Setting("highway", 4, 3, 2, ("ok:2/2", "uoro"), svd=3)
    monkeypatch.setitem(experiments.SETTINGS, "tiny", tiny)
    monkeypatch.setattr(_timing, "_TARGET", 0.01)
    out = str(tmp_path / "record.json")
    assert main(["bench", "tiny", "--repeats", "1", "--out", out]) == 0
    record = json.loads(Path(out).read_text())
    assert record["settings"][0]["setting"] == "tiny"
    rows = {row["learner"]: row for row in record["settings"][0]["rows"]}
    assert set(rows) == {"ok:2/2", "uoro", "tbptt:25"}
    assert all(row["us"] > 0 and row["state_bytes"] > 0 for row in rows.values())
    assert "svd 3 x 3" in record["settings"][0]["floors"]
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[:2] for line in table] == [
        ["tiny", name] for name in ("ok:2/2", "uoro", "tbptt:25")
    ]
    assert main(["bench", "--compare", out, out]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[-2:] for line in lines] == [["1.00", "x"]] * 3
    assert all("(" in line and " to " in line for line in lines)


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, format, *args):
        pass


def test_data_are_fetched_verified_and_never_half_there(tmp_path, monkeypatch, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    contents = {f"{name}.txt": f"{name} ".encode() * 50 for name in ("train", "valid")}
    for name, content in contents.items():
        (there / name).write_bytes(content)
    files = tuple(
        data.Remote(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    handler = functools.partial(Files, directory=str(there))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(data.DATA, "ptb", data.DataSet("two texts", base, files))
        assert main(["data", "ptb", "--dir", str(here)]) == 0
        assert {path.name: path.read_bytes() for path in here.iterdir()} == contents
        (here / "train.txt").unlink()
        assert main(["data", "ptb", "--dir", str(here)]) == 0
        assert "there already, verified" in capsys.readouterr().out
        # What was damaged there is not taken, what was damaged here is not trusted.
        (there / "train.txt").write_bytes(b"something else")
        (here / "train.txt").unlink()
        assert main(["data", "ptb", "--dir", str(here)]) == 2
        assert "got " + base + "train.txt with 14 bytes" in capsys.readouterr().err
        assert [path.name for path in here.iterdir()] == ["valid.txt"]
        server.shutdown()
    assert main(["data", "ptb", "--dir", str(here)]) == 2
    assert "put train.txt, valid.txt (two texts) into" in capsys.readouterr().err
    (here / "train.txt").write_bytes(contents["train.txt"])
    (here / "valid.txt").write_bytes(b"half")
    assert main(["data", "ptb", "--dir", str(here)]) == 2
    assert "remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--learner uoro --rank 3", "--rank must be left out for uoro; got 3; drop it."),
        ("--learner ok:3 --rank 4", "--rank must be given once; got 'ok:3' and 4; drop one."),
        ("--rank 0", "rank must be an int >= 1; got 0"),
    ],
)
def test_a_number_beside_the_learners_name_fits_it_or_is_refused(words, sentence, capsys):
    assert main(["train", "adding", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
    options = options_for(train.Train, "adding", "Train")
    assert train.named(_parse.parse(options, ["--rank", "4"], "foretrace train")) == "ok:4"
    assert train.named(_parse.parse(options, ["--learner", "tbptt", "--window", "3"], "")) == "tbptt:3"
    assert train.named(_parse.parse(options, ["--learner", "ok:2/8"], "")) == "ok:2/8"
