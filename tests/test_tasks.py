"""Every task's stream against what it is defined to be, read off by plain Python."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace import tasks
from foretrace.cli import main
from foretrace.training import evaluation, trainer


def stream(task, steps, lanes=2, seed=0):
    """Inputs, targets and restarts of a task, each (steps, lanes, ..)."""
    state = task.init(jax.random.key(seed), lanes)
    step = lambda state, _: task.sample(state)  # noqa: E731
    return [np.asarray(part) for part in jax.jit(lambda s: jax.lax.scan(step, s, length=steps)[1])(state)]


def spoken(task, letters, steps, lanes=2):
    """What each lane hears, as strings; that what is to be said is the next of it is checked here."""
    x, target, restart = stream(task, steps, lanes)
    assert x.shape == (steps, lanes, task.inputs) and (x.sum(axis=-1) == 1).all()
    heard = x.argmax(axis=-1)
    np.testing.assert_array_equal(target[:-1], heard[1:])
    assert not restart.any()
    return ["".join(letters[i] for i in heard[:, lane]) for lane in range(lanes)]


def test_anbn_is_a_stream_of_as_many_b_as_a():
    first, second = spoken(tasks.anbn(5), "ab\n", 3000)
    assert first != second
    strings = re.findall(r"(a+)\n(b+)\n", first)
    assert "".join(f"{a}\n{b}\n" for a, b in strings) == first[: sum(2 * len(a) + 2 for a, _ in strings)]
    assert all(len(a) == len(b) for a, b in strings)
    lengths = np.array([len(a) for a, _ in strings])
    counts = np.bincount(lengths, minlength=6)
    assert counts[0] == 0 and (abs(counts[1:] - counts.sum() / 5) < 5 * np.sqrt(counts.sum() / 5)).all()


@pytest.mark.parametrize(("s", "gap", "a"), [(1, (5, 5), 10), (3, (2, 7), 10), (10, (0, 0), 8)])
def test_brackets_say_their_letters_again(s, gap, a):
    alphabet = "0123456789"[:a]
    first, second = spoken(tasks.brackets(s, gap, a), alphabet + "[]\n", 6000)
    assert first != second
    lines = first.split("\n")[:-1]
    shapes = [re.fullmatch(rf"\[(\d{{{s}}})\](\d*)\[(\d{{{s}}})\]", line) for line in lines]
    assert all(shape and shape[1] == shape[3] for shape in shapes)
    assert {len(shape[2]) for shape in shapes} == set(range(gap[0], gap[1] + 1))
    letters = "".join(shape[1] + shape[2] for shape in shapes)
    counts = np.array([letters.count(letter) for letter in alphabet])
    assert (abs(counts - len(letters) / a) < 5 * np.sqrt(len(letters) / a)).all()
    # The letters of the two places are drawn on their own.
    pairs = [(shape[1][0], shape[2][0]) for shape in shapes if shape[2]]
    assert not pairs or 0.02 < np.mean([x == y for x, y in pairs]) < 0.2


def test_floors_are_the_papers():
    assert tasks.anbn().floor == pytest.approx(0.1429, abs=5e-5)
    for s, gap, a, floor in [(1, (5, 5), 10, 1.661), (3, (2, 7), 10, 1.774), (10, (0, 0), 8, 1.200)]:
        assert tasks.brackets(s, gap, a).floor == pytest.approx(floor, abs=5e-4)


def test_the_floor_is_what_an_observer_who_counts_reaches():
    """Bits that remain when every symbol is given its true probability, on a long stream."""
    text = spoken(tasks.anbn(4), "ab\n", 20_000, lanes=1)[0]
    bits = 0.0
    for a in re.findall(r"(a+)\n", text):
        # After i times a, of 4 - i + 1 lengths that are left one is over.
        bits += sum(math.log2((5 - i) / (4 - i)) for i in range(1, len(a))) + math.log2(5 - len(a))
    assert bits / len(text) == pytest.approx(tasks.anbn(4).floor, rel=0.02)


def test_adding_weighs_two_old_inputs():
    x, target, _ = stream(tasks.adding(2, 5), 400)
    np.testing.assert_array_equal(x[..., 0] + x[..., 1], 1)
    bits = x[..., 0]
    np.testing.assert_allclose(target[5:, :, 0], 0.5 + 0.5 * bits[3:-2] - 0.25 * bits[:-5])
    assert 0.4 < bits.mean() < 0.6 and (bits[:, 0] != bits[:, 1]).any()


def test_rotation_foretells_its_next_input_at_a_speed_that_changes():
    x, target, restart = stream(tasks.rotation(20), 400)
    np.testing.assert_array_equal(target[:-1], x[1:])
    assert not restart.any() and (x[0, 0] != x[0, 1]).any()
    x = np.asarray(x[..., 0], float)
    inside = np.abs(x[1:-1]) > 0.1
    twice = np.where(inside, (x[2:] + x[:-2]) / np.where(inside, x[1:-1], 1), np.nan)  # 2 cos(speed)
    assert np.nanmedian(np.abs(np.diff(twice, axis=0))) < 1e-3  # most of the time it is what it was
    speeds = np.arccos(np.clip(twice[inside] / 2, -1, 1))
    assert 0.1 - 1e-2 < np.percentile(speeds, 5) < 0.4 < 0.7 < np.percentile(speeds, 90) < 1.01
    with pytest.raises(ValueError, match=r"^period must be an int >= 1; got 0; 100 is the default\.$"):
        tasks.rotation(0)


def test_balance_has_the_papers_influences():
    task = tasks.balance()
    cell = task.cell

    def firsts(theta):
        """The first unit after each of 600 steps."""

        def step(hidden, _):
            hidden = cell.step({"theta": theta}, hidden, jnp.zeros(0))
            return hidden, hidden[0]

        return jax.lax.scan(step, jnp.zeros(23), length=600)[1]

    influence = np.asarray(jax.jit(jax.jacfwd(firsts))(0.5))
    known = {1: 1, 10: 10, 20: 16.48, 40: 0.57, 50: -4.75, 600: -6}
    assert {k: influence[k - 1] for k in known} == pytest.approx(known, abs=0.006)
    means = np.cumsum(influence) / np.arange(1, 601)
    assert means[108] > 0 > means[109]


def reading(content, lanes, reset, steps):
    """What the text task should give, one character after the other."""
    alphabet = sorted(set(content))
    rows = []
    for start in np.linspace(0, len(content) - 1, lanes).astype(int):
        at = [(start + i) % len(content) for i in range(steps + 1)]
        rows.append(
            [
                (alphabet.index(content[p]), alphabet.index(content[q]), bool(reset) and p % reset == 0)
                for p, q in pairwise(at)
            ]
        )
    return np.array(rows).transpose(2, 1, 0)


@pytest.mark.parametrize("reset", [7, None])
def test_text_is_read_from_equally_spaced_places_and_wraps(tmp_path, reset):
    content = bytes(np.random.default_rng(0).choice(np.frombuffer(b" aez\n\xc3\xa9", np.uint8), 230))
    (tmp_path / "a.txt").write_bytes(content)
    corpus = tasks.read_text(tmp_path / "a.txt")
    assert bytes(corpus.alphabet) == bytes(sorted(set(content)))
    task = tasks.text(corpus, reset)
    x, target, restart = stream(task, 500, lanes=3)
    heard, said, fresh = reading(content, 3, reset, 500)
    np.testing.assert_array_equal(x.argmax(axis=-1), heard)
    np.testing.assert_array_equal(target, said)
    np.testing.assert_array_equal(restart, fresh)


BAD_TEXT = {
    "missing": (None, "must be a text file; got .* No such file"),
    "empty": (b"", "at least 100 bytes; got .* with 0"),
    "short": (b"abc" * 30, "at least 100 bytes; got .* with 90"),
    "binary": (b"abc" * 50 + b"\0" + b"d" * 9, r"binary \(its byte 150 is NUL\)"),
    "foreign": (b"abcx" * 50, "only bytes that the text to learn from has; .* b'x'"),
}


@pytest.mark.parametrize("kind", BAD_TEXT)
def test_what_is_no_text_is_refused(tmp_path, kind):
    content, message = BAD_TEXT[kind]
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tasks.read_text(path, alphabet=np.frombuffer(b"abcd", np.uint8))


@pytest.mark.parametrize("lanes", [1, 3, 64])
def test_evaluation_predicts_every_character_once_and_carries_the_hidden_state(lanes):
    symbols = np.random.default_rng(1).integers(0, 4, 1003).astype(np.uint8)
    task = tasks.text(tasks.Corpus(symbols, np.arange(4, dtype=np.uint8)))
    cell = ft.cells.lstm(hidden=5, inputs=4)
    made = trainer(cell, ft.tbptt(cell, window=1), task, optax.sgd(0.1), lanes=1, steps=1)
    params = made.init(jax.random.key(0)).params
    params["readout"] = jax.tree.map(lambda leaf: 100 * leaf, params["readout"])
    found = jax.jit(evaluation(cell, task, symbols, lanes))(params)
    stretches = min(lanes, 10)
    length = -(-1002 // stretches)
    step, bits = jax.jit(cell.step), []
    for begin in range(0, 1002, length):
        hidden = cell.initial_hidden()
        for i in range(begin, min(begin + length, 1002)):
            hidden = step(params["cell"], hidden, jnp.eye(4)[symbols[i]])
            logits = np.asarray(hidden.h @ params["readout"]["kernel"] + params["readout"]["bias"], float)
            bits.append((np.log(np.exp(logits).sum()) - logits[symbols[i + 1]]) / math.log(2))
    assert len(bits) == 1002
    assert float(found) == pytest.approx(np.mean(bits), rel=1e-5)


TASKS = {
    "anbn": tasks.anbn(3),
    "brackets": tasks.brackets(1, (1, 2), 3),
    "adding": tasks.adding(1, 3),
    "rotation": tasks.rotation(5),
    "balance": tasks.balance(),
    "text": tasks.text(tasks.Corpus(np.arange(97, dtype=np.uint8) % 5, np.arange(5, dtype=np.uint8)), 7),
    "copy": tasks.copy(),
}


@pytest.mark.parametrize("name", TASKS)
def test_one_update_after_a_chunk_is_jax_grad_of_the_unrolled_loss(name):
    """RTRL, one update at the end: SGD moves by the gradient of the mean loss over all steps."""
    task, steps, rate = TASKS[name], 12, 0.01
    cell = task.cell or ft.cells.rnn(hidden=4, inputs=task.inputs)
    made = trainer(cell, ft.rtrl(cell), task, optax.sgd(rate), lanes=2, steps=steps, update_every=steps)
    start = made.init(jax.random.key(3))
    params = jax.tree.map(lambda a: 3 * a, start.params)
    stream = start.streams.task

    def total(params):
        initial = jnp.stack([cell.initial_hidden()] * 2)
        state, hidden, losses = stream, initial, 0.0
        for _ in range(steps):
            state, example = task.sample(state)
            hidden = jnp.where(example.restart[:, None], initial, hidden)
            hidden = jax.vmap(lambda h, x: cell.step(params["cell"], h, x))(hidden, example.x)
            for lane in range(2):
                out = hidden[lane]
                if params["readout"]:
                    out = out @ params["readout"]["kernel"] + params["readout"]["bias"]
                losses += task.loss.of(out, example.target[lane]) / 2
        return losses / steps

    gradient = jax.grad(total)(params)
    expected = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
    carry = jax.jit(made.chunk)(start._replace(params=params))[0]
    for got, want in zip(jax.tree.leaves(carry.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)


def test_compare_shows_parameters_and_losses_of_any_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["compare", "balance", "--learner", "tbptt:1", "--steps", "400", "--learning-rate", "0.001"]
    assert main([*words, "--seeds", "2", "--out", str(tmp_path / "near")]) == 0
    shown = capsys.readouterr().out
    theta = json.loads((tmp_path / "near" / "results.json").read_text())["tbptt:1"]["theta"]
    assert f"{np.mean(theta):.4g} ± {np.std(theta):.2g}" in shown
    assert "few FLOP" in shown and " 0 FLOP" not in shown
    words[-1] = "0.05"
    assert main([*words, "--seeds", "2", "--out", str(tmp_path / "far")]) == 0
    assert re.search(r"\d\.\d+e\+\d+ ± ", capsys.readouterr().out)


def test_a_new_task_is_one_entry_and_its_curriculum_is_shown_under_its_own_name(
    tmp_path, capsys, monkeypatch
):
    def climb(pace: int = 10) -> tasks.Task:
        """Copying whose level rises by itself.

        Args:
            pace: steps on a level.
        """
        return tasks.adding()._replace(
            metrics=lambda state: {"level": 3 + state.time // pace},
            shown=(tasks.Metric("level", "level reached", start=3),),
        )

    monkeypatch.setitem(tasks.TASKS, "climb", tasks.TaskSpec("climb", climb, "climbing.", {"hidden": 4}))
    monkeypatch.setenv("COLUMNS", "120")
    words = ["climb", "--pace", "5", "--lanes", "2", "--steps", "20", "--chunk", "10", "--learner", "uoro"]
    words += ["--block", "2", "--optimizer", "sgd"]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    assert "level = 7, " in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["level"] for record in records] == [5, 7]
    assert records[0]["raised"] == {"level": [[4, 6], [5, 10]]}
    assert main(["compare", *words, "--seeds", "2", "--out", str(tmp_path / "compare")]) == 0
    shown = capsys.readouterr().out
    assert "level reached" in shown and "7.0 ± 0.0" in shown
    assert main(["--help"]) == 0
    assert ",balance,climb}" in capsys.readouterr().out


def test_every_task_is_on_the_page_of_training():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    section = page[page.index("| task | ") :]
    rows = section[: section.index("\n\n")].splitlines()[2:]
    assert [re.match(r"\| `(\w+)", row)[1] for row in rows] == list(tasks.TASKS)


def test_the_loss_of_a_text_is_per_byte(tmp_path):
    # One bit decides each character: a third of a bit for each of its three bytes.
    text = "".join("天" if bit else "地" for bit in np.random.default_rng(0).integers(2, size=300))
    (tmp_path / "a.txt").write_text(text)
    corpus = tasks.read_text(tmp_path / "a.txt")
    assert len(corpus.symbols) == 3 * len(text)
    task = tasks.text(corpus)
    assert (task.loss.name, task.loss_metric.label) == ("bits_per_byte", "bits per byte")
    assert "bits per byte" in tasks.TASKS["text"].purpose
