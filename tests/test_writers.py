"""What TensorBoard is told is what stands in the records."""

import json
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.runs._writers import TensorBoard, scalars

RECORD = {
    "step": 500,
    "seconds": 1.5,
    "bits": 0.25,
    "T": 3,
    "raised": {"T": [[3, 480]]},
    "info": {"mixed": 2.0, "per group": [1.0, 4.0]},
}


def events(path):
    """The events of a file, in TensorBoard's framing: length, checksum, event, checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += length + 16


def test_scalars_are_every_number_of_a_record():
    assert scalars(RECORD) == {
        "seconds": 1.5,
        "bits": 0.25,
        "T": 3.0,
        "info/mixed": 2.0,
        "info/per group/0": 1.0,
        "info/per group/1": 4.0,
    }


def test_tensorboard_files_hold_every_number_at_its_step(tmp_path):
    writer = TensorBoard(tmp_path)
    for step in (500, 1000):
        writer.write(step, scalars(RECORD | {"bits": 1 / step}))
    writer.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    found = {
        (event.step, value.tag): value.simple_value
        for event in events(path)
        for value in event.summary.value
    }
    assert found[500, "bits"] == pytest.approx(1 / 500) and found[1000, "bits"] == pytest.approx(1 / 1000)
    assert {tag for step, tag in found if step == 500} == {
        name.replace(" ", "_") for name in scalars(RECORD)
    }


def test_without_the_package_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'foretrace\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_train_writes_to_tensorboard_what_stands_in_its_metrics(tmp_path):
    words = "train balance --steps 60 --chunk 20 --block 4 --tensorboard --out"
    assert main([*words.split(), str(tmp_path)]) == 0
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (path,) = tmp_path.glob("events.out.tfevents.*")
    found = {(e.step, v.tag): v.simple_value for e in events(path) for v in e.summary.value}
    assert len(records) == 3
    for record in records:
        assert found[record["step"], "theta"] == pytest.approx(record["theta"])


def test_a_refused_run_leaves_no_events(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert main(["train", "balance", "--steps", "20", "--tensorboard", "--out", str(tmp_path)]) == 2
    TensorBoard(tmp_path).close()
    assert not list(tmp_path.glob("events*"))
