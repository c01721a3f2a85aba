"""Claims of papers: what is measured, what is kept, and that a failed claim is not passed over."""

import json
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from foretrace import cells, experiments, learners, tasks
from foretrace._checks import UserError
from foretrace.cli import main
from foretrace.experiments import _balance, _bench, _block, _noise, _ptb, _record, _variance
from foretrace.experiments._curves import curves
from foretrace.experiments._experiment import Experiment, Finding, Reported
from foretrace.experiments._fixed_networks import highway, stream
from foretrace.experiments._gradient_error import errors
from foretrace.experiments._record import draw_record
from foretrace.plotting import Chart, Line
from foretrace.runs import _resumable
from foretrace.runs._resumable import PartCache, remove
from foretrace.training import trainer


def fake(holds=True, confirmed=False):
    """An experiment that takes no time."""
    lines = [Line("ours", [1, 10, 100], [[1, 2, 4], [1, 3, 5]]), Line("theory", [1, 100], [[1, 3]], True)]
    return Experiment(
        name="fake",
        claim="Two is more than one.",
        protocol="Count.",
        source="A paper, 2000.",
        reported=(Reported("its figure", "2.5", "its table", confirmed),),
        deviations=("We counted twice.",),
        scales={scale: {"seeds": 2, "learners": ("a", "b")} for scale in ("quick", "day", "full")},
        run=lambda settings, say, part: {
            "y": np.arange(3.0),
            "seeds": settings["seeds"],
            "bad": np.float32(1 / 3),
        },
        check=lambda result: [Finding("two is more than one", holds, "2 against 1")],
        table=lambda result: [("learner", "y"), ("ours", str(result["y"][2]))],
        charts=lambda result: [Chart("Something", "time", lines)],
    )


@pytest.fixture
def only_fake(monkeypatch):
    """Makes the fake the only experiment; called with what it should be like."""

    def install(**options):
        monkeypatch.setattr(experiments, "EXPERIMENTS", {"fake": fake(**options)})

    return install


def test_every_claim_of_the_papers_has_a_command(capsys):
    assert main(["reproduce", "--list"]) == 0
    shown = capsys.readouterr().out
    for name, experiment in experiments.EXPERIMENTS.items():
        assert name in shown
        assert experiment.claim and experiment.protocol and experiment.source and experiment.deviations
        assert experiment.reported
        assert set(experiment.scales) == {"quick", "day", "full"}
        assert all(settings["seeds"] >= 1 for settings in experiment.scales.values())


def test_figures_from_memory_are_marked_wherever_they_are_shown(tmp_path, only_fake, capsys):
    for confirmed in (False, True):
        only_fake(confirmed=confirmed)
        assert main(["reproduce", "fake", "--page", "--out", str(tmp_path)]) == 0
        assert ("UNCONFIRMED" in capsys.readouterr().out) != confirmed
        page = (tmp_path / "experiments.md").read_text()
        row = next(line for line in page.splitlines() if "its figure" in line)
        assert row.endswith("| confirmed |" if confirmed else "| *unconfirmed* |")


def test_a_failed_claim_exits_with_one_and_is_kept(tmp_path, only_fake, capsys):
    only_fake(holds=False)
    assert main(["reproduce", "fake", "--page", "--out", str(tmp_path)]) == 1
    assert "FAILS: two is more than one: 2 against 1" in capsys.readouterr().out
    assert not json.loads((tmp_path / "fake-quick.json").read_text())["findings"][0]["holds"]
    assert "**fails**: two is more than one" in (tmp_path / "experiments.md").read_text()


def test_a_record_holds_command_settings_machine_and_plain_numbers(tmp_path, only_fake):
    only_fake()
    words = ["reproduce", "fake", "--seeds", "7", "--scale", "day", "--out", str(tmp_path)]
    assert main(words) == 0
    record = json.loads((tmp_path / "fake-day.json").read_text())
    assert record["command"] == " ".join(["foretrace", *words])
    assert record["settings"] == {"seeds": 7, "learners": ["a", "b"]}
    assert record["result"] == {"y": [0, 1, 2], "seeds": 7, "bad": 0.333333}
    assert record["device"] and record["jax"] == jax.__version__ and record["seconds"] >= 0
    assert (tmp_path / "fake-day.png").read_bytes().startswith(b"\x89PNG")


def test_an_experiment_that_is_cut_off_goes_on_with_what_is_missing(
    tmp_path, only_fake, monkeypatch, capsys
):
    only_fake()
    calls, broken = [], [True]

    def make(name):
        if name == "c" and broken:
            raise UserError("cut off")
        calls.append(name)
        return np.float32(1 / 3), {"steps": np.arange(2)}

    def run(settings, say, part):
        return {"y": [part(name, partial(make, name))[1]["steps"] for name in "abc"]}

    cut = fake()._replace(run=run, table=lambda result: [("y",)])
    monkeypatch.setitem(experiments.EXPERIMENTS, "fake", cut)
    words, cache = ["reproduce", "fake", "--out", str(tmp_path)], tmp_path / "fake-quick.parts.json"
    assert main(words) == 2 and calls == ["a", "b"] and cache.exists()
    broken.clear()
    assert main([*words, "--seeds", "3", "--scale", "day"]) == 0 and calls == [*"ab", *"abc"]
    spent = json.loads(cache.read_text())["seconds"]
    assert main(words) == 0 and calls == [*"ab", *"abc", "c"] and not cache.exists()
    assert "2 finished parts are in" in capsys.readouterr().out
    record = json.loads((tmp_path / "fake-quick.json").read_text())
    assert record["result"] == {"y": [[0, 1]] * 3} and record["seconds"] >= round(spent, 1)


def test_parts_of_other_settings_or_of_no_sense_are_ignored(tmp_path):
    path = tmp_path / "a.json"
    assert PartCache(path, {"jax": "1"})("a", lambda: 1) == 1
    assert PartCache(path, {"jax": "1"})("a", lambda: 2) == 1 and len(PartCache(path, {"jax": "2"})) == 0
    assert PartCache(path, {"jax": "2"})("a", lambda: 2) == 2 and len(PartCache(path, {"jax": "1"})) == 0
    for content in ("", "[]", '{"stamp": 1}', "\0"):
        path.write_text(content)
        assert len(PartCache(path, {"jax": "2"})) == 0
    assert PartCache(None, {})("a", lambda: ((1,), np.ones((1, 2)), "b", None)) == [
        [1],
        [[1, 1]],
        "b",
        None,
    ]


def test_only_ok_is_held_against_its_authors_and_every_learner_against_the_next():
    ends = {"ok:8": 2.0, "ok:8/16": 2.1, "kf_rtrl": 2.2, "uoro": 2.6, "tbptt:25": 2.0}
    steps = [10_000, 50_000, 100_000]
    learners = {label: {"steps": steps, "valid": [[2.98, 2.3, end]]} for label, end in ends.items()}
    findings = _ptb.PTB.check({"groups": {"authors": {"units": 256, "learners": learners}}})
    holds = {finding.claim: finding.holds for finding in findings}
    whose = "the authors' 8-OK"
    assert holds == {
        f"ok:8 after 10,000 steps: within 0.03 of {whose}": True,
        f"ok:8 after 50,000 steps: within 0.03 of {whose}": True,
        f"ok:8 after 100,000 steps: within 0.03 of {whose}": False,
        f"ok:8/16 after 10,000 steps: at most 0.03 above {whose}": True,
        f"ok:8/16 after 50,000 steps: at most 0.03 above {whose}": True,
        f"ok:8/16 after 100,000 steps: at most 0.03 above {whose}": True,
        "ok:8/16 after 100,000 steps: at most 0.03 above block 1": False,
        "256 units: ok:8 is below kf_rtrl": True,
        "256 units: kf_rtrl is below uoro": True,
        "256 units: ok:8 is within 3 % of tbptt:25, or below": True,
    }


def test_a_long_part_that_is_cut_off_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(_resumable, "_OFTEN", 0.0)
    task = tasks.balance()
    training = trainer(task.cell, learners.rtrl(task.cell), task, optax.sgd(1e-3), lanes=1, steps=3)
    path, visits = tmp_path / "a.parts.json", []

    def learn(progress, stop=None):
        def watch(step, carry):
            visits.append(step)
            if step == stop:
                raise KeyboardInterrupt
            return carry.params["cell"]["theta"]

        curve = curves(training, 2, 5, progress, watch)
        return {"theta": curve.values["watched"], "steps": curve.steps, **curve.values}

    whole = PartCache(None, {}).long("a", learn)
    assert np.shape(whole["theta"]) == (2, 5) and visits == [3, 6, 9, 12, 15]
    visits.clear()
    with pytest.raises(KeyboardInterrupt):
        PartCache(path, {}).long("a", partial(learn, stop=9))
    for stamp, expected in (({"jax": "other"}, [3, 6, 9, 12, 15]), ({}, [9, 12, 15])):
        visits.clear()
        parts = PartCache(path, stamp)
        # Of other versions nothing is used, of the same ones not a step is taken twice.
        assert parts.long("a", learn) == whole and visits == expected
        assert parts.seconds >= parts._content["seconds"] > 0
    assert not list((tmp_path / "a.parts").iterdir())
    remove(path)
    assert not list(tmp_path.iterdir())


def test_in_a_checkout_records_pictures_and_page_have_their_places(tmp_path, only_fake, monkeypatch):
    only_fake()
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "fake"]) == 0
    assert (tmp_path / "reproduced" / "fake-quick.json").exists()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    assert main(["reproduce", "fake", "--page"]) == 0
    assert (tmp_path / "benchmarks" / "results" / "fake-quick.json").exists()
    assert (tmp_path / "docs" / "experiments" / "fake-quick.png").exists()
    page = (tmp_path / "docs" / "experiments.md").read_text()
    assert "(experiments/fake-quick.png)" in page and "quick: holds" in page


def test_the_page_is_made_from_records_alone(tmp_path, only_fake, capsys):
    only_fake()
    assert main(["reproduce", "--page", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "experiments.md").read_text()
    assert "Not measured yet: `foretrace reproduce fake`" in page
    (tmp_path / "fake-quick.json").write_text("[]")
    assert main(["reproduce", "--page", "--out", str(tmp_path)]) == 2
    assert "must be a record that foretrace reproduce wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "experiment must be named"),
        (("nope",), f"experiment must be one of {', '.join(experiments.EXPERIMENTS)}; got 'nope'"),
        (("balance", "--seeds", "0"), "seeds must be an int from 1"),
        (("balance", "--data", "x"), "data must be left out for balance"),
        (
            ("ptb", "--data", "no-such-folder"),
            "data must be a text file; got 'no-such-folder/ptb.train.txt'",
        ),
        (("ptb", "--scale", "day"), "data must be a folder with ptb.train.txt"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(words, message, tmp_path, capsys):
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_seed_that_diverged_is_told_of_and_no_claim_holds_for_its_learner(tmp_path):
    steps, well, nan = list(range(1, 11)), [2.0] * 9 + [1.8], float("nan")
    bits = {
        "uoro": [well, well],
        "ok:8": [well, well[:6] + [nan] * 4],
        "kf_rtrl": [[1.9] * 2 + [nan] * 8] * 2,
        "tbptt:1": [[2.5] * 10] * 2,
    }
    result = {
        "floor": 1.7,
        "learners": {label: {"steps": steps, "bits": rows} for label, rows in bits.items()},
    }
    brackets = experiments.EXPERIMENTS["brackets"]
    shown = {row[0]: row[1] for row in brackets.table(result)}
    assert shown["ok:8"] == "1.96 ± 0, 1 of 2 diverged" and shown["kf_rtrl"] == "diverged"
    holds = {finding.claim: finding.holds for finding in brackets.check(result)}
    assert holds["uoro gets below tbptt:1"] and holds["no learner gets below the entropy floor"]
    assert not holds["ok:8 gets below tbptt:1"] and not holds["kf_rtrl gets below tbptt:1"]
    draw_record(brackets, {"result": result, "settings": {"seeds": 2}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_record_is_strict_json_and_diverged_values_read_back_as_such(tmp_path):
    record = {"experiment": "fake", "settings": {"data": None}, "result": {"bits": [[1.5, float("nan")]]}}
    path = experiments.record_path(tmp_path, "fake", "quick")
    experiments.save(record, path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    again = experiments.load(tmp_path, fake())["quick"]
    assert again["settings"] == {"data": None}
    np.testing.assert_array_equal(again["result"]["bits"], [[1.5, np.nan]])


def test_the_block_that_auto_takes_is_held_against_the_sweep(monkeypatch):
    def measure(name, repeats, say, setting):
        us = [
            10.0 + abs(_block._BLOCKS.index(int(text.partition("/")[2])) - 4) for text in setting.learners
        ]
        return {"rows": [{"us": value} for value in (*us, 1.0)]}

    monkeypatch.setattr(_block, "measure_setting", measure)
    settings = {"seeds": 2, "cases": {"highway-32": ("ok:8",)}}
    result = _block.BLOCK.run(settings, lambda line: None, PartCache(None, {}))
    assert result["cases"]["highway-32"]["ok:8"]["auto"] == 16
    assert [finding.holds for finding in _block.BLOCK.check(result)] == [True, True]
    assert _block.BLOCK.table(result)[1][-2:] == ("16", "1 ± 0")
    result["cases"]["highway-32"]["ok:8"]["auto"] = 1
    assert [finding.holds for finding in _block.BLOCK.check(result)] == [False, True]


def test_networks_that_diverged_are_not_measured(tmp_path, monkeypatch, capsys):
    few = {"seeds": 2, "steps": 64, "training": 64, "rate": 1e30, "networks": ("trained",), "units": 4}
    monkeypatch.setitem(_noise.NOISE_TIME.scales, "quick", _noise.NOISE_TIME.scales["quick"] | few)
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        assert main(["reproduce", "noise-time", "--out", str(tmp_path)]) == 2
    assert "got 2 of 2 networks (trained, 4 units) without after 64 steps" in capsys.readouterr().err
    assert not (tmp_path / "noise-time-quick.json").exists()


def test_errors_are_those_of_exact_gradients_and_exact_learners_have_none():
    cell = highway(6)
    network = jax.jit(partial(stream, "random", 6, steps=16))(jax.random.key(0))
    np.testing.assert_allclose(jnp.linalg.norm(network.credits, axis=1), 1, rtol=1e-5)

    def errors_of(text, key):
        compiled = jax.jit(partial(errors, learners.parse(text).build(cell), learners.rtrl(cell, block=8)))
        return compiled(network.params, key, network.xs, network.credits)

    def total(params, weights):
        """The hidden states, weighted by their credits at some of the steps."""

        def step(hidden, inputs):
            x, credit, weight = inputs
            hidden = cell.step(params, hidden, x)
            return hidden, weight * (credit @ hidden)

        return jnp.sum(jax.lax.scan(step, cell.initial_hidden(), (network.xs, network.credits, weights))[1])

    window, noisy = errors_of("tbptt:8", jax.random.key(1)), errors_of("kf_rtrl/2", jax.random.key(2))
    gradient = jax.jit(jax.grad(total))
    for t in range(16):
        leaves = jax.tree.leaves(gradient(network.params, jnp.zeros(16).at[t].set(1.0)))
        np.testing.assert_allclose(window.size[t], sum(float(jnp.sum(g**2)) for g in leaves), rtol=1e-4)
    assert jnp.all(window.error[:8] <= 1e-9 * window.size[:8])
    np.testing.assert_allclose(window.cosine[:8], 1, rtol=1e-4)
    assert jnp.max(window.error[8:] / window.size[8:]) > 1e-3 and jnp.min(window.cosine[8:]) < 0.999
    assert jnp.all(noisy.error[:2] <= 1e-9 * noisy.size[:2]) and jnp.all(noisy.error[4:] > 1e-4)


def test_returns_are_judged_by_noise_and_bias_and_drawn_against_them(tmp_path):
    result = {
        "best": 4.0,
        "lives": {
            name: {"steps": [1, 2], "values": [[0.0] * 2 + [end] * 18 for end in values]}
            for name, values in {
                "rtrl": (3.9, 3.8),
                "ok:1": (3.7, 3.9),
                "uoro": (3.7, 1.0),
                "immediate": (1.0, 1.2),
            }.items()
        },
        "noise": {
            name: {"policy": error, "value": error / 2}
            for name, error in {"rtrl": 1e-14, "ok:1": 0.2, "uoro": 40.0, "immediate": 0.5}.items()
        },
    }
    experiment = experiments.EXPERIMENTS["noise-return"]
    findings = experiment.check(result)
    assert [finding.holds for finding in findings] == [True] * 3
    assert findings[1].measured == "2 of 2 lives solve the maze, against 1 of 2"
    assert findings[2].claim.startswith(
        "bias costs more than variance: uoro solve it more often than immed"
    )
    assert experiment.table(result)[3] == ("uoro", "40", "20", "2.35 ± 1.4", "1 of 2")
    draw_record(experiment, {"result": result, "settings": {"seeds": 2}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    result["lives"]["immediate"] = result["lives"]["uoro"]
    result["lives"]["ok:1"] = {"steps": [1, 2], "values": [[0.0] * 20] * 2}
    assert [finding.holds for finding in experiment.check(result)] == [False] * 3


def test_a_slope_is_the_exponent_of_a_power():
    x = np.array([16, 32, 64, 128])
    value, width = _noise.slope(x, np.array([3.0 * x**1.25, 0.1 * x**1.15]))
    assert abs(value - 1.2) < 1e-6 and 0.05 < width < 0.15


def test_truncation_steers_the_wrong_way_up_to_109_steps():
    task = tasks.balance()
    steers = np.array(_balance._influence(task.cell, 5000))
    assert abs(steers[0] - 1) < 1e-9 and abs(steers[9] - 5.5) < 1e-9
    assert abs(steers[99] - 0.58) < 0.01 and abs(steers[199] + 2.71) < 0.01
    assert np.all(steers[:109] > 0) and np.all(steers[109:] < 0)
    assert abs(steers[-1] + 6) < 0.2


def test_the_variance_claim_holds_through_the_command_line(tmp_path, monkeypatch, capsys):
    few = {"units": 8, "ranks": (4,), "blocks": (1, 8), "blocked": ("ok:4",), "formula": ("ok:4",)}
    monkeypatch.setitem(_variance.VARIANCE.scales, "quick", _variance.VARIANCE.scales["quick"] | few)
    assert main(["reproduce", "variance", "--seeds", "2", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "every single reduction of OK has the squared error that its formula says" in shown
    assert "FAILS" not in shown and shown.count("holds:") == 3
    record = json.loads((tmp_path / "variance-quick.json").read_text())
    assert record["settings"]["seeds"] == 2 and all(finding["holds"] for finding in record["findings"])
    assert (tmp_path / "variance-quick.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_claim_holds_at_scale_quick(name, tmp_path):
    code = "import sys; from foretrace.cli import main; sys.exit(main())"
    words = ["reproduce", name, "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    assert (tmp_path / f"{name}-quick.png").exists()


def test_a_text_is_named_where_there_is_none(monkeypatch):
    with pytest.raises(
        UserError, match=r"data must be a folder .*; got none; give --data DIR \(foretrace data"
    ):
        _ptb._corpora({"data": None, "needs_data": True})
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(
        UserError, match="where Python comes without its documentation; got none; give --data"
    ):
        _ptb._corpora({"data": None, "needs_data": False})


def test_what_is_no_record_is_named(tmp_path):
    (tmp_path / "fake-quick.json").write_text("[]")
    with pytest.raises(UserError, match=r"fake-quick.json must be a record that foretrace reproduce wrote"):
        _record._read(tmp_path / "fake-quick.json", fake())


def test_networks_that_training_broke_are_counted(no_types, monkeypatch):
    class Broken(NamedTuple):
        credits: jax.Array

    monkeypatch.setattr(_noise, "stream", lambda *_, **__: Broken(jnp.full((2, 4), jnp.nan)))
    settings = _noise.NOISE_TIME.scales["quick"] | {"seeds": 2, "learners": ("uoro",)}
    with pytest.raises(UserError, match="training must leave finite parameters; got 2 of 2 networks"):
        _noise._measure("trained", 4, settings, np.arange(2), print, lambda name, make: make())


def test_a_recurrence_within_units_stands_on_no_product():
    analysed = {
        name: learners.analyse(cells.CELLS[name](hidden=8, inputs=3)) for name in ("diagonal", "rnn")
    }
    assert _bench._floor_name(analysed["rnn"], "rtrl", 0) == "product (S,S) @ (S,P)"
    assert _bench._floor_name(analysed["diagonal"], "rtrl", 0) is None
