"""A type checker knows the library: it passes users' right programs and stops at every wrong call."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import foretrace

SOURCE = Path(foretrace.__file__).parents[1]

RIGHT = {
    "cell": """
import jax
import jax.numpy as jnp
import foretrace as ft

def leaky(params, hidden, x):
    return 0.9 * hidden + 0.1 * jnp.tanh(params["w"] @ hidden + params["v"] @ x)

def init(key: jax.Array) -> dict[str, jax.Array]:
    w, v = jax.random.split(key)
    return {"w": jax.random.normal(w, (8, 8)), "v": jax.random.normal(v, (8, 3))}

cell: ft.Cell = ft.cell(leaky, init=init, hidden=8, inputs=3)
pair = ft.cell(lambda p, h, x: h, init=init, hidden=(4, 4), inputs=3, output=lambda hidden: hidden[0])
other = ft.Cell(init, lambda: jnp.zeros(8), leaky, lambda: jnp.zeros(3))
params = cell.init(jax.random.key(0))
hidden = cell.step(params, cell.initial_hidden(), cell.example_input())
print(ft.explain(cell), cell.output(hidden), ft.recommend(cell, memory=10**6).best)
""",
    "learner": """
from typing import NamedTuple

import jax
import jax.numpy as jnp
import foretrace as ft

cell = ft.cells.rnn(hidden=8, inputs=3)

class State(NamedTuple):
    hidden: jax.Array
    key: jax.Array

class Info(NamedTuple):
    pass

def init(key, params, lanes=None):
    return State(jnp.zeros(8), key)

def advance(params, state: State, x: jax.Array) -> State:
    return state._replace(hidden=cell.step(params, state.hidden, x))

def end_block(params, state):
    return state, Info()

def grad(params, state, credit):
    return jax.tree.map(jnp.zeros_like, params)

def reset(state: State, restart: jax.Array) -> State:
    return state

learner = ft.Learner(init, advance, end_block, grad, sweep=grad, reset=reset)
params = cell.init(jax.random.key(0))
state = learner.init(jax.random.key(1), params, lanes=None)
state, info = learner.step(params, state, jnp.ones(3))
hidden, state = ft.online(learner)(params, state, jnp.ones(3))
twice: ft.Learner = ft.average(learner._replace(block=1), 2)
print(state.hidden, info, hidden, learner.grad(params, learner.reset(state, jnp.array(True)), hidden))
""",
    "blocks": """
import jax
import foretrace as ft

cell = ft.cells.rnn(hidden=8, inputs=3)
learner = ft.learners.parse("ok:4/5").build(cell)
params = cell.init(jax.random.key(0))
state = learner.init(jax.random.key(1), params, 2)

def each(params, state, x):
    gradient = learner.grad(params, state, state.hidden)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), (state.hidden**2).sum()

def end(params, state, losses):
    return params, learner.sweep(params, state, losses)

params, state, losses = ft.run_blocks(learner, params, state, jax.numpy.ones((20, 2, 3)), each)
params, state, sums = ft.run_blocks(learner, params, state, jax.numpy.ones((20, 2, 3)), each, end)

def count(carry: tuple[object, int], state: object, sample: tuple[jax.Array, jax.Array]):
    return (carry[0], carry[1] + 1), sample[1]

xs = jax.numpy.ones((20, 2, 3)), jax.numpy.ones(20)
find = lambda carry: carry[0]
(params, steps), state, labels = ft.run_blocks(
    learner, (params, 0), state, xs, count, params=find, inputs=lambda sample: sample[0]
)
print(learner.block, losses.mean(), sums, steps, labels)
""",
}

# Every line below the first blank one is an error.
WRONG = """\
import jax
import foretrace as ft
cell = ft.cells.rnn(hidden=8, inputs=3)
learner = ft.ok(cell, rank=8)
key = jax.random.key(0)
params, x = cell.init(key), jax.numpy.ones(3)
state = learner.init(key, params)
def each(params, state, x):
    return params, None

learner.ste(params, state, x)
learner.step(params, state)
learner.step(params, state, x, x)
learner.init(key)
learner.init(key, params, lane=2)
learner.init(key, params, lanes="2")
learner.advance(params, x)
learner.grad(params, state)
learner.block.bit_size
hidden, state, info = learner.step(params, state, x)
ft.Learner(learner.init, learner.advance, learner.end_block, learner.grad, learner.sweep)
ft.Learner(*learner[:5], reset=lambda state: state)
ft.Learner(each, learner.advance, learner.end_block, learner.grad, learner.sweep, lambda: 0)
ft.Cell(cell.init, cell.initial_hidden, lambda params, hidden: hidden, cell.example_input)
cell.inital_hidden()
ft.cells.rnn(8, 3)
ft.ok(cell)
ft.ok(cell, 8)
ft.ok(cell, rank="8")
ft.ok(learner, rank=8)
ft.online(cell)
ft.run_blocks(learner, params, state, x)
ft.run_blocks(learner, params, state, x, lambda params, state: (params, None))
ft.run_blocks(learner, params, state, each, x)
ft.run_blocks(cell, params, state, x, each)
ft.average(learner)
ft.rtlr(cell)
"""


def test_right_programs_pass_and_every_wrong_line_is_an_error(tmp_path):
    """All programs in one run of the checker, which costs seconds before it reads the first."""
    page = (SOURCE.parent / "docs" / "start.md").read_text()
    loop = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ft.online" in block
    )
    for name, text in (RIGHT | {"start": loop, "wrong": WRONG}).items():
        (tmp_path / f"{name}.py").write_text(text)
    settings = {"typeCheckingMode": "standard", "include": ["."], "extraPaths": [str(SOURCE)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == len(RIGHT) + 2, run.stderr
    errors = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error"]
    right = [entry for entry in errors if Path(entry["file"]).stem != "wrong"]
    assert not right, [(entry["file"], entry["range"]["start"], entry["message"]) for entry in right]
    first = WRONG[: WRONG.index("\n\n")].count("\n") + 2
    lines = WRONG.splitlines()
    flagged = Counter(entry["range"]["start"]["line"] for entry in errors)
    assert [lines[n] for n in range(first, len(lines)) if n not in flagged] == [], "passes as right"
    assert min(flagged) >= first, "the preamble is an error"
