"""The table of learners, what they cost and which fit a cell: against the code itself."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from foretrace import tasks
from foretrace.cli import _job
from foretrace.cli._main import main
from foretrace.experiments import SETTINGS
from foretrace.learners import SPECS, analyse, parse
from test_testing import LEARNERS as TESTED

README = Path(__file__).parents[1] / "README.md"


def test_the_table_has_every_learner_with_the_claims_it_is_tested_for():
    assert SPECS.keys() == TESTED.keys()
    for name, (_, _, claims) in TESTED.items():
        assert claims.get("unbiased", False) == (SPECS[name].unbiased and not SPECS[name].exact), name
    assert [name for name, spec in SPECS.items() if spec.exact] == ["rtrl"]


def test_the_readme_lists_every_learner_beside_its_claim():
    listed = re.findall(
        r"^\| (exact|unbiased|biased|baselines).*? \| (.*) \|$", README.read_text(), re.MULTILINE
    )
    claims = {name: claim for claim, names in listed for name in re.findall(r"`(\w+)`", names)}
    assert claims.keys() == SPECS.keys()
    for name, spec in SPECS.items():
        claim = "exact" if spec.exact else "unbiased" if spec.unbiased else "biased"
        assert claims[name] == ("baselines" if spec.source == "a baseline" else claim), name


def test_what_a_learner_asks_of_a_cell_is_what_it_refuses():
    gru = ft.cells.gru(hidden=3, inputs=2)
    masked = ft.cell(
        lambda p, h, x: (0.5 * p["w"]) * h.sum() @ h,
        init=lambda key: {"w": jax.random.normal(key, (9, 9))},
        hidden=9,
        inputs=1,
    )
    for cell, asked in [(gru, "units apart but for weights"), (masked, "weights factorise")]:
        shown = {candidate.choice.spec.name: candidate for candidate in ft.recommend(cell).candidates}
        for name, spec in SPECS.items():
            if spec.requires.text != asked:
                continue
            assert shown[name].cost is None and shown[name].reason
            with pytest.raises(ValueError, match=f"^{name} needs "):
                TESTED[name][0](cell)


def test_names_of_learners_have_an_age():
    choice = parse("ok:2/4+1*2")
    assert (choice.block, choice.age, choice.copies) == (4, 1, 2) and str(choice) == "ok:2/4+1*2"
    assert str(parse("kf_rtrl+0")) == "kf_rtrl"
    for spec in SPECS.values():
        assert spec.takes_age == ("age" in inspect.signature(spec.factory).parameters)
    cell = ft.cells.rnn(hidden=3, inputs=2)
    windows = [
        parse(name).build(cell).init(jax.random.key(0), cell.init(jax.random.key(0))).restarts.shape[0]
        for name in ("uoro/4", "uoro/4+1")
    ]
    assert windows == [5, 9]
    explained = analyse(cell)
    assert explained.cost("ok:2/4").operations < explained.cost("ok:2/4+1").operations


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok:8/16+2", "age must be 0 or 1, in blocks; got 2"),
        ("low_rank:8/16+1", "low_rank has no age; got"),
        ("rflo+1", "rflo has no age; got"),
        ("ok:8+", "learner must be NAME:NUMBER/BLOCK"),
    ],
)
def test_a_name_of_another_age_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse(text)


# RFLO takes units of one number, and an LSTM's have two.
PAIRS = [(name, cell) for name in SPECS for cell in ("lstm", "elstm") if (name, cell) != ("rflo", "lstm")]


@pytest.mark.parametrize(("name", "cell_name"), PAIRS)
def test_bytes_are_those_of_the_state(name, cell_name):
    cell = getattr(ft.cells, cell_name)(hidden=8, inputs=3)
    choice = parse(name)
    learner = choice.build(cell)
    state = learner.init(jax.random.key(0), cell.init(jax.random.key(0)), 2)
    numbers = [
        jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
        for a in jax.tree.leaves(state)
    ]
    assert analyse(cell).cost(choice, lanes=2).bytes == sum(a.nbytes for a in numbers)


def test_what_fits_comes_first_and_the_rest_says_why_not():
    cell = ft.cells.highway(hidden=16, inputs=4)
    everything, tight = ft.recommend(cell), ft.recommend(cell, memory=10_000, unbiased=True)
    assert everything.best == "rtrl"
    fitting = [candidate for candidate in tight.candidates if candidate.fits]
    assert fitting and tight.candidates[: len(fitting)] == tuple(fitting)
    assert tight.best == str(fitting[0].choice) != "rtrl"
    for candidate in tight.candidates:
        unbiased = candidate.choice.spec.unbiased
        assert candidate.fits == (unbiased and candidate.cost.bytes <= 10_000)
        assert candidate.fits == (not candidate.reason)
    assert tight.best in str(tight)


def test_of_ok_an_age_is_recommended_first():
    names = [str(c.choice) for c in ft.recommend(ft.cells.gru(hidden=8, inputs=2)).candidates]
    assert names[:4] == ["rtrl", "ok:16/16+1", "ok:8/16+1", "low_rank:8"]


def test_no_rank_above_the_state_is_recommended():
    names = [str(c.choice) for c in ft.recommend(ft.cells.rnn(hidden=8, inputs=2)).candidates]
    assert [name for name in names if name.startswith("low_rank")] == ["low_rank:8", "low_rank:4"]
    names = [str(c.choice) for c in ft.recommend(ft.cells.rnn(hidden=3, inputs=2)).candidates]
    assert [name for name in names if name.startswith("low_rank")] == ["low_rank:3"]


def test_memory_for_nothing_at_all_is_said():
    cell = ft.cells.rnn(hidden=4, inputs=2)
    with pytest.raises(ValueError, match=r"^memory must be enough for one learner; got none that fits"):
        _ = ft.recommend(cell, memory=1).best
    with pytest.raises(ValueError, match=r"^memory must be a number > 0; got 0; give bytes, or leave it"):
        ft.recommend(cell, memory=0)


def test_the_commands_print_the_tables(capsys):
    assert main(["learners"]) == 0
    listed = capsys.readouterr().out
    assert all(spec.call in listed for spec in SPECS.values())
    assert main(["explain", "elstm", "--hidden", "8", "--unbiased"]) == 0
    shown = capsys.readouterr().out
    assert "recurrent" in shown and "biased" in shown and shown.count("rtrl") == 2


@pytest.mark.parametrize("text", ["snap:2", "sketch:3", "ktp:3", "rflo", "eprop", "immediate", "frozen"])
def test_a_run_takes_it(text):
    cell = ft.cells.highway(hidden=4, inputs=4)
    run = _job.build_run(_job.Settings(lanes=2, steps=10, chunk=10), text, tasks.copy(), cell)
    assert run.label == text and run.cost.operations > 0


# Blocks whose step takes at most 1.2 times as long as the best: `foretrace reproduce block --scale day`.
GOOD_BLOCKS = {
    ("highway-128", "ok:16"): {16},
    ("highway-128", "kf_rtrl"): {1, 2, 4, 8, 16},
    ("highway-128", "uoro"): {1, 2, 4, 8, 16},
    ("highway-256", "ok:8"): {16},
    ("highway-32", "ok:8"): {8, 16},
    ("rnn-256", "ok:8"): {8, 16},
    ("rnn-256", "kf_rtrl"): {1},
    ("rnn-256", "uoro"): {1},
    ("lstm-128", "ok:8"): {16, 32},
    ("rtrl-64", "rtrl"): {16, 32},
}


@pytest.mark.parametrize("case", GOOD_BLOCKS, ids=" ".join)
def test_auto_chooses_long_blocks_where_products_are_large_and_short_ones_where_not(case):
    name, learner = case
    setting = SETTINGS[name]
    block = analyse(setting.build_cell()).best_block(learner, lanes=setting.lanes)
    assert block in GOOD_BLOCKS[case]
