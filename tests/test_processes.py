"""Many processes as one job over 127.0.0.1: one run folder, checkpoints in pieces, one last sentence."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from foretrace._checks import UserError
from foretrace.runs import _together, checkpoint
from foretrace.runs.checkpoint import _step
from foretrace.scale import _processes

COMMAND = "import sys; from foretrace.cli import main; sys.exit(main(sys.argv[1:]))"
RUN = ["train", "copy", "--learner", "ok:2/4", "--hidden", "8", "--lanes", "4", "--chunk", "20"]
RUN += ["--steps", "120", "--checkpoint-every", "20"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder, *words, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(folder, *words, processes=2, each=lambda i: ()):
    """Starts the processes of a job; `each` gives words of one alone."""
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(processes)]
    return [start(folder, *RUN, *address, "--process", str(i), *words, *each(i)) for i in range(processes)]


def slurm(folder, *words):
    """The two processes of a job that Slurm started, with nothing but its variables to find each other."""
    ports = 2**12  # from which JAX takes one by the number of the job
    while (number := free_port() % ports) and not is_free(2**16 - ports + number):
        pass
    of_all = {"SLURM_JOB_ID": str(number), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    own = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    return [start(folder, *RUN, "--coordinator", "auto", *words, **of_all, **each) for each in own]


def is_free(port):
    with socket.socket() as listener:
        return listener.connect_ex(("127.0.0.1", port)) != 0


def ended(jobs):
    """Exit code, output and errors of each; what gloo says of itself left out."""
    out = []
    for process in jobs:
        text, errors = process.communicate(timeout=900)
        out.append((process.returncode, text, errors))
    return out


def records(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_job_that_loses_a_process_ends_and_goes_on_with_two_and_with_one(tmp_path):
    words = ["--mesh", "lanes=2"]
    for code, _, errors in ended(job(tmp_path, *words, "--out", "whole")):
        assert code == 0, errors
    jobs = job(tmp_path, *words, "--out", "two")
    wait_for(tmp_path / "two" / "checkpoints" / "step-000000000040", jobs[0])
    jobs[1].kill()
    (code, _, errors), _ = ended(jobs)
    assert code == 1 and "all processes of a job must live; got one that ended" in errors
    assert "Traceback" not in errors and errors.count("foretrace:") == 1
    steps = checkpoint.steps(tmp_path / "two" / "checkpoints")
    assert 0 < max(steps) < 120
    # Each process wrote the pieces on its own device, and nothing else.
    manifest = json.loads((steps[max(steps)] / "manifest.json").read_text())
    assert [file["file"] for file in manifest["files"]] == ["state-0.safetensors", "state-1.safetensors"]
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for code, _, errors in ended(job(tmp_path, *words, "--out", "two", "--resume")):
        assert code == 0, errors
    ((code, _, errors),) = ended([start(tmp_path, *RUN, "--out", "one", "--resume")])
    assert code == 0 and "not bit for bit" in errors
    assert records(tmp_path / "two") == records(tmp_path / "whole")
    assert records(tmp_path / "one")[-1]["bits"] == pytest.approx(
        records(tmp_path / "whole")[-1]["bits"], rel=1e-4
    )


def test_four_processes_divide_lanes_and_units_and_the_first_may_die(tmp_path):
    jobs = job(tmp_path, "--mesh", "lanes=2,units=2", "--out", "run", processes=4)
    wait_for(tmp_path / "run" / "checkpoints" / "step-000000000020", jobs[0])
    jobs[0].kill()
    for code, _, errors in ended(jobs)[1:]:
        assert code != 0 and "Traceback" not in errors
    ((code, out, errors),) = ended([start(tmp_path, *RUN, "--out", "run", "--resume")])
    assert code == 0 and "goes on from step" in out, errors


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (lambda i: ["--learning-rate", f"0.00{i + 1}"], "processes must have the options and versions of"),
        (lambda i: ["--lanes", "3"], "lanes must be a multiple of the 2 parts of the mesh; got 3"),
    ],
)
def test_processes_that_disagree_or_do_not_fit_refuse_together(tmp_path, each, message):
    for code, _, errors in ended(job(tmp_path, "--out", "run", each=each)):
        assert code == 2 and message in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_slurm_names_the_others_and_the_run_is_that_of_a_job_told_by_hand(tmp_path):
    words = ["--mesh", "lanes=2", "--steps", "40"]
    by_hand = job(tmp_path, *words, "--out", "by-hand")
    for code, _, errors in ended(by_hand) + ended(slurm(tmp_path, *words, "--out", "slurm")):
        assert code == 0, errors
    assert records(tmp_path / "slurm") == records(tmp_path / "by-hand")


def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    where = lambda i: ["--out", str(tmp_path / "ab"[i] / "run")]  # noqa: E731
    for code, _, errors in ended(job(tmp_path, each=where)):
        assert code == 2 and "Traceback" not in errors
        assert "out must be a folder that every process sees" in errors
    assert not list((tmp_path / "a").iterdir()) and not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("number", [0, 1])
def test_who_waits_in_vain_says_so_in_one_sentence(tmp_path, number):
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process", str(number)]
    ((code, _, errors),) = ended([start(tmp_path, *RUN, *address, "--coordinator-timeout", "3")])
    assert code == 2 and "all processes come, within 3 s" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, 0, 60), "coordinator must be given with processes and process"),
        (("here", 2, 0, 60), "coordinator must be HOST:PORT or auto; got 'here'"),
        (("here:1", 2, 2, 60), "process must be an int from 0 to processes - 1; got process=2"),
        (("here:1", None, None, 60), "process must be an int from 0"),
        (("here:1", 2, 0, 0), "coordinator_timeout must be an int >= 1"),
    ],
)
def test_words_that_name_no_job_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        _processes.join(*arguments)


def test_what_one_of_many_processes_refuses_all_refuse(tmp_path, monkeypatch):
    def answers(other):
        monkeypatch.setattr(_together, "gathered", lambda mine: [mine, other])

    monkeypatch.setattr(_together, "count", lambda: 2)
    answers("lanes 3")
    with pytest.raises(UserError, match="versions of process 0; got lanes 3 in process 1; start all with"):
        _processes.agree({"lanes": 2})
    answers("lanes must be even; got 3; give 4.")
    with pytest.raises(UserError, match=r"^lanes must be even; got 3; give 4\.$"):
        _together.refuse_together(lambda: None)
    answers("0")
    (tmp_path / "run").touch()
    with pytest.raises(
        UserError, match=r"folder that every process sees; got .*, which process 1 does not"
    ):
        _together.check_shared(tmp_path / "run", True)
    with pytest.raises(UserError, match="step must be given where many processes save together; got None"):
        checkpoint.save(tmp_path / "saved", {"a": 1})
    monkeypatch.setattr(_together, "gathered", lambda mine: [mine, mine])
    with pytest.raises(
        checkpoint.CheckpointError, match=r"could not be written to .*: Not a directory; the"
    ):
        checkpoint.save(tmp_path / "run" / "saved", {"a": 1}, step=1)


def test_a_job_that_cannot_be_joined_is_one_sentence(monkeypatch):
    def fail(**_):
        raise RuntimeError("no such host")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(
        UserError, match="where a job can be joined; got 'there:1': no such host; give HOST"
    ):
        _processes.join("there:1", 2, 0, 60)


def pieces(folder, *parts):
    """A checkpoint of one array of four numbers, of which each process writes a part."""
    manifests = []
    for i, (start_, values) in enumerate(parts):
        name, values = f"state-{i}.safetensors", np.asarray(values, np.float32)
        state = _step.safetensors.numpy.save({"0": values})
        (folder / name).write_bytes(state)
        piece = {
            "path": "['w']",
            "kind": "array",
            "impl": None,
            "dtype": "float32",
            "whole": [4],
            "file": name,
            "key": "0",
            "start": [start_],
            "shape": list(values.shape),
            "sha256": _step._sha256(values),
        }
        file = {"file": name, "bytes": len(state), "sha256": _step._sha256(state), "pieces": [piece]}
        manifests.append(json.dumps(file))
    _step.write_whole(folder, manifests, step=int(folder.name[5:]), loss=None, info={})


def test_pieces_are_put_together_and_a_missing_or_flipped_one_is_noticed(tmp_path):
    like = {"w": np.zeros(4, np.float32)}
    for step in (1, 2, 3):
        (tmp_path / f"step-{step:012d}").mkdir()
    pieces(tmp_path / "step-000000000001", (0, [1, 2]), (2, [3, 4]))
    pieces(tmp_path / "step-000000000002", (0, [1, 2]))
    pieces(tmp_path / "step-000000000003", (0, [1, 2]), (2, [3, 4]))
    damaged = tmp_path / "step-000000000003" / "state-1.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.warns(checkpoint.CheckpointWarning) as warnings:
        restored = checkpoint.restore(tmp_path, like)
    assert restored.step == 1 and restored.tree["w"].tolist() == [1, 2, 3, 4]
    said = " ".join(str(warning.message) for warning in warnings)
    assert "state-1.safetensors differs from its SHA-256" in said and "has 2 of its 4 numbers" in said
