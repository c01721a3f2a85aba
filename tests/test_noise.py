"""What learners' gradients are worth on a network of one's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.cli import main
from foretrace.experiments import _compare, _measure_noise, _timing, measure_noise
from oracles import CELLS, draw, exact_lanes, run, stream

STEPS = 12


@pytest.fixture(autouse=True)
def short_loops(monkeypatch):
    monkeypatch.setattr(_timing, "_TARGET", 0.01)


@pytest.fixture
def problem():
    cell = CELLS["gru"]()
    params, (xs, credits) = draw(cell, scale=0.8), stream(cell, STEPS, 2)
    restarts = jnp.zeros((STEPS, 2), bool).at[jnp.array([3, 8]), jnp.array([0, 1])].set(True)
    return cell, params, xs, credits, restarts


def test_error_bias_and_cosine_are_those_of_the_definition(problem):
    cell, params, xs, credits, restarts = problem
    table = measure_noise(cell, params, xs, credits, ["rtrl/4", "tbptt:3"], restarts=restarts, draws=2)
    rtrl, tbptt = table.rows
    assert table.reference == "exact RTRL" and table.reference_error == 0
    assert rtrl.error < 1e-10 and abs(rtrl.bias) < 1e-5 and rtrl.cosine == pytest.approx(1, abs=1e-5)

    def lanes(gradients):
        return np.concatenate([np.reshape(a, (STEPS, -1)) for a in jax.tree.leaves(gradients)], axis=1)

    # Every lane by itself, since a gradient is summed over lanes.
    wanted, got = [], []
    for lane in range(2):
        one = (xs[:, [lane]], credits[:, [lane]])
        wanted.append(lanes(exact_lanes(cell, params, *one, restarts[:, [lane]])))
        learner = ft.tbptt(cell, window=3)
        got.append(lanes(run(learner, cell, params, *one, lanes=1, restart=restarts[:, [lane]])[0]))
    wanted, got = np.concatenate(wanted), np.concatenate(got)
    size = np.sum(wanted**2)
    assert tbptt.error == pytest.approx(np.sum((got - wanted) ** 2) / size, rel=1e-4)
    assert tbptt.bias == pytest.approx(np.sum((got - wanted) * wanted) / size, rel=1e-4)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    assert tbptt.cosine == pytest.approx(np.mean(np.sum(got * wanted, axis=1) / lengths), rel=1e-4)
    # Steps without a gradient have no cosine.
    pause = jax.tree.map(lambda a: a.at[-4:].set(0), credits)
    assert measure_noise(cell, params, xs, pause, ["rtrl"], draws=2).rows[0].cosine == pytest.approx(1)
    assert tbptt.spread == 0 and tbptt.microseconds > 0
    assert tbptt.state_bytes == ft.learners.analyse(cell).cost("tbptt:3").bytes


def test_unbiased_learners_have_no_bias_and_their_order(problem):
    cell, params, xs, credits, restarts = problem
    names = ["uoro/1", "ok:1/2", "low_rank:1/2"]
    table = measure_noise(cell, params, xs, credits, names, restarts=restarts, draws=400)
    assert [row.learner for row in table.rows] == names
    assert all(abs(row.bias) < 4 * row.bias_error for row in table.rows)
    errors = [row.error for row in table.rows]
    assert errors[0] > errors[1] > 0 and errors[2] > 0


def test_auto_is_a_sweep_of_what_fits_the_cell_and_the_cheapest_quiet_one_is_named(monkeypatch):
    dense, plain = CELLS["gain"](), CELLS["rnn"]()
    monkeypatch.setattr(_measure_noise, "_AUTO", ("low_rank:2/2", "ok:2/2+1", "low_rank:64/2"))
    swept = _measure_noise._sweep(ft.learners.analyse(plain))
    assert swept == ["low_rank:2/2", "ok:2/2+1"]
    params, (xs, credits) = draw(plain), stream(plain, 20, 1)
    table = measure_noise(plain, params, xs, credits, ["auto", "tbptt:3", "low_rank:2/2"], draws=2)
    assert [row.learner for row in table.rows] == [*swept, "tbptt:3"]

    def row(name, error, time):
        return table.rows[0]._replace(learner=name, error=error, microseconds=time)

    rows = row("dear", 1e-9, 5.0), row("quiet", 0.009, 2.0), row("noisy", 0.02, 1.0)
    said = str(table._replace(rows=rows))
    assert said.endswith("cheapest with an error of a hundredth or less: quiet")
    said = str(table._replace(rows=rows[2:]))
    assert said.endswith("none with an error of a hundredth or less; the least is that of noisy")
    tiny = ft.cells.rnn(hidden=1, inputs=1)
    assert _measure_noise._sweep(ft.learners.analyse(tiny)) == ["rtrl"]
    # What is not offered: a learner that the cell is not one for.
    names = _measure_noise._sweep(ft.learners.analyse(dense))
    assert all(not ft.learners.parse(n).spec.requires.refusal(ft.structure_of(dense)) for n in names)


def test_an_estimate_stands_in_for_a_gradient_that_is_too_dear(problem, monkeypatch):
    cell, params, xs, credits, _ = problem
    monkeypatch.setattr(_compare, "_REFERENCE_RANK", 1)
    monkeypatch.setattr(_compare, "_REFERENCE_BLOCK", 2)
    table = measure_noise(cell, params, xs, credits, ["ok:1/2"], draws=2, memory=1.0)
    assert table.reference == "two low_rank:1/2" and 0 < table.reference_error < 1
    assert "whose own relative squared error is" in str(table)


def test_credits_without_a_gradient_are_refused(problem):
    cell, params, xs, credits, _ = problem
    with pytest.raises(ValueError, match="credits must make some exact gradient that is not zero"):
        measure_noise(cell, params, xs, 0 * credits, ["uoro"], draws=2)


def test_the_command_measures_a_run(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["train", "copy", "--hidden", "6", "--lanes", "2", "--learner", "ok:2/4", "--steps", "40"]
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        assert main([*words, "--out", out]) == 0
    capsys.readouterr()
    assert main(["noise", out, "--learners", "low_rank:2/4, tbptt:5", "--steps", "24", "--draws", "2"]) == 0
    said = capsys.readouterr().out
    assert "highway, 6 units, parameters of step 40, 2 lanes" in said
    assert "low_rank:2/4" in said and "tbptt:5" in said and "beside exact RTRL" in said
    assert (tmp_path / "run" / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert "<span>tbptt:5</span>" in (tmp_path / "run" / "noise.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{}"], "run must be the folder of a run of foretrace train or rl"),
        (["{}", "--draws", "0"], "draws must be an int >= 1; got 0"),
        (["{}/nowhere"], "run must be the folder of a run of foretrace train or rl"),
    ],
)
def test_the_command_refuses_bad_input_in_one_sentence(words, sentence, tmp_path, capsys):
    assert main(["noise", *(word.format(tmp_path) for word in words)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


def test_a_run_that_has_saved_nothing_is_refused(tmp_path, capsys):
    words = ["train", "adding", "--hidden", "4", "--lanes", "2", "--learner", "uoro"]
    (tmp_path / "config.json").write_text(json.dumps({"command": words}))
    assert main(["noise", str(tmp_path)]) == 2
    assert "without one; go on with it by foretrace resume." in capsys.readouterr().err


def test_the_command_measures_the_networks_of_an_agent(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = ["rl", "t_maze", "--length", "3", "--cell", "gru", "--hidden", "4", "--encoder", "3"]
    words += ["--steps", "100", "--chunk", "50", "--out"]
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        assert main([*words, out]) == 0
        capsys.readouterr()
        assert main(["noise", out, "--learners", "tbptt:3", "--steps", "24", "--draws", "2"]) == 0
    shown = capsys.readouterr().out
    for network in ("policy", "value"):
        assert f"{network} of stream_ac in t_maze, gru of 4 units, parameters of step 100, 1 lane" in shown
        assert (tmp_path / "run" / f"noise-{network}.png").read_bytes().startswith(b"\x89PNG")
        assert "<span>tbptt:3</span>" in (tmp_path / "run" / f"noise-{network}.html").read_text()


@pytest.mark.parametrize(
    ("words", "networks"),
    [("rl t_maze --agent qrc", ("value", "correction")), ("rl gym:CartPole-v1", ("policy", "value"))],
)
def test_the_command_measures_every_agent_in_every_world(tmp_path, capsys, words, networks):
    out = str(tmp_path / "run")
    if "gym:" in words:
        pytest.importorskip("gymnasium")
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        assert main([*words.split(), "--hidden", "3", "--steps", "20", "--chunk", "20", "--out", out]) == 0
        assert main(["noise", out, "--learners", "immediate", "--steps", "24", "--draws", "2"]) == 0
    shown = capsys.readouterr().out
    for network in networks:
        assert f"{network} of " in shown
        assert (tmp_path / "run" / f"noise-{network}.png").read_bytes().startswith(b"\x89PNG")
