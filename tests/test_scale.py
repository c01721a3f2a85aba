"""One network on many devices: the same numbers, a part of the memory each, and what they send."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import foretrace as ft
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.scale import _plan, _roofline
from test_testing import CONTRIB, LEARNERS

HERE = Path(__file__).parent
MESHES = ("1x8", "8x1", "2x4")
QUICK = ("ok", "rtrl", "low_rank", "uoro")


def on_eight_devices(*words, **environment):
    """Runs Python in a process whose CPU has eight virtual devices; what it printed."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "9"} | environment  # jaxlib 0.10 has one idle
    run = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=HERE
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def lines(dtype, names):
    out = on_eight_devices("devices.py", dtype, *names)
    return {(each["name"], each["mesh"]): each for each in map(json.loads, out.splitlines())}


@pytest.fixture(scope="module")
def doubles():
    """A few learners in float64."""
    return lines("float64", QUICK)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("mesh", MESHES)
def test_a_sharded_learner_gives_the_same_gradients(doubles, name, mesh):
    assert doubles[name, mesh]["difference"] < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
def test_every_sharded_learner_gives_the_same_gradients(dtype, bound):
    names = [*LEARNERS, *CONTRIB]
    each = lines(dtype, names)
    assert len(each) == len(names) * len(MESHES)
    assert {key: line["difference"] for key, line in each.items() if line["difference"] > bound} == {}


def test_in_single_precision_they_do_to_its_rounding():
    for key, line in lines("float32", QUICK[:2]).items():
        assert line["difference"] < 1e-5, key


@pytest.mark.parametrize("name", QUICK)
def test_a_device_holds_its_part_of_the_past(doubles, name):
    for mesh in MESHES:
        each, whole = doubles[name, mesh]["past"]
        lanes, units = map(int, mesh.split("x"))
        # Left factors, vectors of the state and small leaves are whole along units.
        bound = whole / 8 if units == 1 else whole / 8 + 0.25 * whole / lanes
        assert each <= 1.01 * bound, mesh


def test_weights_are_divided_along_units_and_whole_along_lanes(doubles):
    for mesh, parts in {"1x8": 8, "8x1": 1, "2x4": 4}.items():
        each, whole = doubles["ok", mesh]["params"]
        assert each * parts == whole


def test_along_lanes_only_gradients_are_summed(doubles):
    for name in QUICK:
        line = doubles[name, "8x1"]
        assert set(line["kinds"]) <= {"all-reduce", "collective-permute"}, name
        # One sum of a gradient for the window and one for the past, and a few numbers for keys.
        assert line["sent"] <= 1.02 * 2 * 2 * 7 / 8 * line["params"][1] + 64, name


PROGRAM = """
HloModule jit_run, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%body (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = f32[4]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
}

%unknown (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f64[2,8]{1,0} all-gather(%x), channel_id=2, replica_groups=[2,4]<=[8], dimensions={1}
}

%cond (t: (s32[], f32[4])) -> pred[] {
  ROOT %p = pred[] compare(%a, %b), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %w = (s32[]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%unknown
  %p = (f32[3], s32[]) all-reduce(%y, %z), replica_groups=mesh['lanes'=2,'units'=4] {'lanes'}, to_apply=%add
  %q = f32[3]{0} all-reduce(%y), replica_groups={{0},{1}}, to_apply=%add
}
"""


def test_collectives_count_as_often_as_their_loops_turn():
    each = ft.scale.collectives(PROGRAM, loop=2.5)
    assert [(c.kind, c.bytes, c.devices, c.times) for c in each] == [
        ("all-reduce", 16, 4, 5.0),
        ("all-gather", 128, 4, 2.5),
        ("all-reduce", 16, 2, 1.0),
    ]
    assert ft.scale.sent(PROGRAM, loop=2.5) == 5 * 16 * 1.5 + 2.5 * 128 * 0.75 + 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ft.scale.mesh(lanes=2, units=64), "mesh must have at most the"),
        (lambda: ft.scale.mesh(lanes=0), "lanes must be an int >= 1"),
        (lambda: ft.scale.parse_mesh("lanes=2,rows=3"), "mesh must be lanes=N,units=N"),
        (lambda: ft.scale.parse_mesh("lanes=2,lanes=3"), "each once"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_mesh_of_many_processes_has_all_their_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: ["of process 0", "of process 1"])
    with pytest.raises(
        UserError, match="mesh must have all 2 devices of the 2 processes; got lanes=1,units=1"
    ):
        ft.scale.mesh(lanes=1)


def test_a_mesh_leaves_a_virtual_device_idle_where_decompositions_would_wait_for_ever(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: ["one", "two"])
    with pytest.raises(UserError, match=r"must leave one virtual device .* set JAX_NUM_CPU_DEVICES=3"):
        ft.scale.mesh(lanes=2)


def test_a_mesh_divides_lanes_and_columns():
    def mesh(lanes, units):
        devices = np.full((lanes, units), jax.devices()[0])
        return jax.sharding.Mesh(devices, ("lanes", "units"))

    cell = ft.cells.rnn(hidden=4, inputs=3)
    with pytest.raises(
        UserError, match=r"lanes must be a multiple of the 3 parts of the mesh; got 8; use 9"
    ):
        ft.scale.Layout(cell, mesh(lanes=3, units=1)).check_lanes(8)
    with pytest.raises(
        UserError, match=r"mesh must divide the 4 columns of .*; got units=3; use a divisor"
    ):
        ft.scale.Layout(cell, mesh(lanes=1, units=3))


COMMAND = "import sys; from foretrace.cli import main; sys.exit(main(sys.argv[1:]))"
SMALL = ["--learner", "ok:2/4", "--hidden", "16", "--lanes", "8", "--chunk", "20"]
SMALL += ["--checkpoint-every", "20"]


def command(folder, *words, devices=9):  # jaxlib 0.10 has one idle
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, env=environment, cwd=folder
    )


def records(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]


def test_a_run_on_a_mesh_goes_on_with_the_same_mesh_bit_for_bit_and_with_another_to_rounding(tmp_path):
    words = ["train", "copy", *SMALL]
    for name, mesh in {"whole": (), "one": ("--mesh", "lanes=2,units=4")}.items():
        run = command(tmp_path, *words, "--steps", "40", *mesh, "--out", name)
        assert run.returncode == 0, run.stderr
    assert "8 devices, 2 along lanes, 4 along units" in run.stdout
    # Cut off after half of it, and resumed.
    for name, mesh in {"same": "lanes=2,units=4", "other": "units=8"}.items():
        folder = tmp_path / name
        subprocess.run(["cp", "-r", str(tmp_path / "one"), str(folder)], check=True)
        subprocess.run(["rm", "-r", str(folder / "checkpoints" / "step-000000000040")], check=True)
        run = command(tmp_path, *words, "--steps", "40", "--mesh", mesh, "--out", name, "--resume")
        assert run.returncode == 0, run.stderr
        assert ("not bit for bit" in run.stderr) == (name == "other")
    whole, one, same, other = (records(tmp_path / name) for name in ("whole", "one", "same", "other"))
    assert same == one
    for record in (one[-1], other[-1]):
        assert record["bits"] == pytest.approx(whole[-1]["bits"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mesh", "lanes=3"], "lanes must be a multiple of the 3 parts of the mesh; got 8; use 9"),
        (["--mesh", "units=7"], "mesh must divide the 32 columns of"),
        (["--mesh", "units=16"], "mesh must have at most the 9 devices that there are"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, words, message):
    run = command(tmp_path, "train", "copy", *SMALL, *words, "--out", "run")
    assert run.returncode == 2 and message in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()


def test_the_mesh_of_one_device_changes_nothing():
    cell = ft.cells.rnn(hidden=4, inputs=3)
    learner, mesh = ft.ok(cell, rank=2), ft.scale.mesh()
    params, x = cell.init(jax.random.key(0)), jax.numpy.ones(3)
    states = []
    for each in (learner, ft.scale.shard(learner, mesh, cell)):
        state = each.init(jax.random.key(1), params)
        states.append(each.step(params, state, x)[0].hidden)
    assert (states[0] == states[1]).all()


@pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="the page has the programs of JAX 0.12's compiler"
)
def test_the_formulas_of_the_page_are_those_of_the_compiled_program():
    sizes = _roofline.Sizes(state=128, inputs=16, lanes=8, rank=4, block=8, devices=8)
    expected = [_roofline.roofline(name, sizes) for name in ("low_rank", "ok", "rtrl")]
    cell = {"name": "rnn", "hidden": 128, "inputs": 16}
    plans = _plan.plan_elsewhere(cell, [plan.learner for plan in expected], {"lanes": 1, "units": 8}, 8)
    for formula, plan in zip(expected, plans, strict=True):
        assert formula.held == pytest.approx(plan.held, rel=0.02), plan.learner
        assert formula.sent == pytest.approx(plan.sent, rel=0.1), plan.learner
        assert formula.operations == plan.operations


def test_the_table_of_the_page_is_that_of_the_formulas():
    def at(count):
        return _roofline.Sizes(4096, 16, 16, 8, 16, count)

    def seconds(plan):
        return plan.seconds(_plan.DEVICES["h200"])

    rows = _roofline.table(("low_rank", "ok", "rtrl"), at, (1, 8, 64, 512), seconds)
    page = (HERE.parent / "docs" / "scale.md").read_text()
    for row in rows:
        assert "| " + " | ".join(row) + " |" in page


def test_the_program_of_the_page_runs():
    page, names = (HERE.parent / "docs" / "scale.md").read_text(), {}
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with jax.numpy_dtype_promotion("standard"):
        exec(program, names)
    assert names["state"].hidden.shape == (8, 16)


def test_explain_plans_for_a_mesh_or_says_why_not(tmp_path, capsys):
    words = ["explain", "rnn", "--hidden", "32", "--lanes", "2", "--learner", "uoro/2", "--mesh"]
    run = command(tmp_path, *words, "lanes=2,units=4", devices=1)
    assert run.returncode == 0, run.stderr
    assert "8 devices (h200), 2 along lanes, 4 along units" in run.stdout and "uoro/2" in run.stdout
    assert main([*words, "lanes=4"]) == 2
    assert "lanes must be a multiple of the 4 parts" in capsys.readouterr().err
    assert main(words[:-1]) == 2
    assert "learner must be left out without --mesh" in capsys.readouterr().err
