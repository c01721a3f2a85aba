"""The table of learners, what they cost and which fit a cell: against the code itself."""

import json
from pathlib import Path

import jax
import pytest

import foretrace as ft
from foretrace import tasks
from foretrace.cli._main import main
from foretrace.experiments import _bench as bench
from foretrace.learners._costs import describe
from foretrace.learners._recommend import LEARNERS, MAKE, table
from test_testing import LEARNERS as TESTED

README = Path(__file__).parents[1] / "README.md"


def test_the_table_has_every_learner_with_the_claims_it_is_tested_for():
    assert LEARNERS.keys() == TESTED.keys() == MAKE.keys()
    for name, (_, _, claims) in TESTED.items():
        assert claims.get("unbiased", False) == (LEARNERS[name].unbiased and not LEARNERS[name].exact), name
    assert [name for name, facts in LEARNERS.items() if facts.exact] == ["rtrl"]


def test_the_table_stands_in_the_readme():
    assert "\n".join(table()) in README.read_text()


def test_what_a_learner_asks_of_a_cell_is_what_it_refuses():
    gru = ft.cells.gru(hidden=3, inputs=2)
    masked = ft.cell(
        lambda p, h, x: (0.5 * p["w"]) * h.sum() @ h,
        init=lambda key: {"w": jax.random.normal(key, (9, 9))},
        hidden=9,
        inputs=1,
    )
    for cell, asked in [(gru, "units apart but for weights"), (masked, "weights factorise")]:
        shown = {choice.label.partition(":")[0]: choice for choice in ft.recommend(cell).choices}
        for name, facts in LEARNERS.items():
            if facts.factorises != asked:
                continue
            assert shown[name].cost is None and shown[name].reason
            with pytest.raises(ValueError, match=f"^{name} needs "):
                TESTED[name][0](cell).init(jax.random.key(0), cell.init(jax.random.key(0)))


SIZES = {"ok": {"rank": 1, "block": 2}, "kf_rtrl": {}, "ktp": {"rank": 2}, "sketch": {"rank": 1}}
SIZES |= {"snap": {"order": 1}, "tbptt": {"window": 2}}


# RFLO takes units of one number, and an LSTM's have two.
PAIRS = [
    (name, cell) for name in LEARNERS for cell in ("lstm", "elstm") if (name, cell) != ("rflo", "lstm")
]


@pytest.mark.parametrize(("name", "cell_name"), PAIRS)
def test_bytes_are_those_of_the_state(name, cell_name):
    cell = getattr(ft.cells, cell_name)(hidden=6, inputs=3)
    learner = TESTED[name][0](cell)
    state = jax.eval_shape(lambda key: learner.init(key, cell.init(key), 2), jax.random.key(0))
    parts = jax.tree.leaves((state.hidden, state.past, state.window, state.weights))
    count = sum(leaf.size for leaf in parts if leaf.ndim > 1)  # numbers of one float per lane aside
    cost = describe(cell).cost(name, lanes=2, **SIZES.get(name, {}))
    assert abs(cost.bytes - 4 * count) <= 4 * 2


def test_what_fits_comes_first_and_the_rest_says_why_not():
    cell = ft.cells.highway(hidden=16, inputs=4)
    everything, tight = ft.recommend(cell), ft.recommend(cell, memory=10_000, unbiased=True)
    assert everything.best == "rtrl"
    fitting = [choice for choice in tight.choices if choice.fits]
    assert fitting and tight.choices[: len(fitting)] == tuple(fitting)
    assert tight.best == fitting[0].label != "rtrl"
    for choice in tight.choices:
        unbiased = LEARNERS[choice.label.partition(":")[0]].unbiased
        assert choice.fits == (unbiased and choice.cost.bytes <= 10_000)
        assert choice.fits == (not choice.reason)
    assert tight.best in str(tight)


def test_memory_for_nothing_at_all_is_said():
    cell = ft.cells.rnn(hidden=4, inputs=2)
    with pytest.raises(ValueError, match=r"^memory must be enough for one learner; got none that fits"):
        _ = ft.recommend(cell, memory=1).best
    with pytest.raises(ValueError, match=r"^memory must be a number of bytes >= 1; got 0; leave it out"):
        ft.recommend(cell, memory=0)


def test_the_commands_print_the_tables(capsys):
    assert main(["learners"]) == 0
    listed = capsys.readouterr().out
    assert all(facts.call in listed for facts in LEARNERS.values())
    assert main(["explain", "elstm", "--hidden", "8", "--unbiased"]) == 0
    shown = capsys.readouterr().out
    assert "recurrent" in shown and "biased" in shown and shown.count("rtrl") == 2


@pytest.mark.parametrize("text", ["snap:2", "sketch:3", "ktp:3", "rflo", "eprop", "immediate", "frozen"])
def test_a_job_takes_it(text):
    cell = ft.cells.highway(hidden=4, inputs=4)
    job = _job.job(_job.Settings(lanes=2, steps=10, chunk=10), text, tasks.copy(), cell)
    assert job.label == text and job.cost.operations > 0


def test_the_block_that_auto_chooses_is_near_the_best_of_the_measured_sweep():
    path = README.parent / "benchmarks/results/auto.json"
    for row in json.loads(path.read_text())["rows"]:
        setting = bench.SETTINGS[row["setting"]]
        kind, rank, _ = bench.parse(row["learner"])
        cell = getattr(ft.cells, setting.cell)(hidden=setting.hidden, inputs=setting.inputs)
        block = describe(cell).best_block(kind, rank=rank, lanes=setting.lanes)
        assert row["us"][str(block)] < 1.2 * min(row["us"].values()), row["setting"]
