"""The pages tell of the code as it is: names resolve, the picture is up to date, the steps work."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree

import foretrace

SOURCE = Path(foretrace.__file__).parent
ROOT = SOURCE.parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rooms_is_that_of_the_code():
    from PIL import Image

    rooms = load(ROOT / "docs" / "draw_rooms.py", "draw_rooms")
    questions = rooms.rooms()
    assert all(questions.values()), "the docstring of a room begins with its question"
    with Image.open(rooms.PICTURE) as picture:
        assert picture.text["Description"] == rooms.describe(), "run: python docs/draw_rooms.py"


def attribute(owner, names, where):
    for name in names:
        assert hasattr(owner, name), where
        owner = getattr(owner, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_name_on_a_page_exists(page):
    written = set(re.findall(r"`([\w/]+\.py)`:\n\n```", page.read_text()))  # by whoever follows the page
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for span in {*re.findall(r"`([^`\n]+)`", prose)} - written:
        if file := re.fullmatch(r"([\w/.]*\w+\.py)(?::([\w.]+))?", span):
            paths = [folder / file[1] for folder in (SOURCE, ROOT) if (folder / file[1]).is_file()]
            assert paths, f"{page.name}: {span}"
            if file[2]:
                parts = paths[0].relative_to(SOURCE).with_suffix("").parts
                name = ".".join(("foretrace", *parts)).removesuffix(".__init__")
                attribute(importlib.import_module(name), file[2].split("."), f"{page.name}: {span}")
        elif name := re.match(r"(?:foretrace|ft)((?:\.\w+)+)", span):
            owner, names = foretrace, name[1].split(".")[1:]
            for depth in range(len(names), 0, -1):  # the longest part that is a module
                dotted = ".".join(("foretrace", *names[:depth]))
                if _is_module(dotted):
                    owner, names = importlib.import_module(dotted), names[depth:]
                    break
            attribute(owner, names, f"{page.name}: {span}")


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    # The build of the site makes these, and fails at a link that leads nowhere.
    made = [ROOT / "docs" / name for name in ("api", "learners", "refusals")]
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        place = (page.parent / target).resolve()
        is_there = "://" in target or place.exists() or any(map(place.is_relative_to, made))
        assert is_there, f"{page.name}: {target}"


def test_the_page_on_the_gradient_says_what_is_so():
    page, names = (ROOT / "docs" / "gradient.md").read_text(), {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    exact = jax.grad(names["unrolled"])(names["params"])["rnn"]
    for name, least, most in ("outside", 0.5, 0.7), ("inside", 0, 1e-5):
        gradient = names[name](names["params"])["rnn"]
        (got, _), (want, _) = ravel_pytree(gradient), ravel_pytree(exact)
        error = jnp.linalg.norm(got - want) / jnp.linalg.norm(want)
        assert least <= error <= most, f"{name}: {error}"


def test_the_agents_of_the_page_on_them_live(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rl.md").read_text(), re.DOTALL):
        exec(block, names)
    assert (
        names["record"]["step"] == 1000 and names["record"]["episodes"] == 83
    )  # of five steps and a call more


def test_the_first_programs_of_the_site_run_and_learn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = {
        page: re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
        for page in ("index.md", "start.md", "training.md")
    }
    first, names = {}, {}
    with jax.numpy_dtype_promotion("standard"):  # which Adam needs
        for block in shown["index.md"]:
            exec(block, first)
        for block in shown["start.md"]:
            exec(block, names)
    names["state"] = names["carry"][2]
    for block in shown["training.md"]:  # saves and loads what the first loop has
        exec(block, names)
    assert names["everything"]["params"]["cell"].keys() == names["params"]["cell"].keys()
    assert f"```python\n{shown['index.md'][0]}```" in (ROOT / "README.md").read_text()
    assert first["grads"]["reset"]["recurrent"].shape == (32, 32)
    assert names["losses"][-500:].mean() < 0.5 * names["losses"][:500].mean()
    assert len((tmp_path / "wave.csv").read_text().splitlines()) == 601


def test_the_figures_on_the_pages_are_those_of_the_records():
    page, rows = (ROOT / "docs" / "speed.md").read_text(), 0
    for setting in json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["settings"]:
        lanes = "one lane" if setting["lanes"] == 1 else f"{setting['lanes']} lanes"
        times = {row["learner"]: row for row in setting["rows"]}
        for learner, row in times.items():
            head = re.escape(f"| {setting['cell']} {setting['hidden']}, {lanes} | `{learner}` |")
            if shown := re.search(rf"{head} (\S+) ms \| (\S+) ms \| (\S+) ms \|", page):
                measured = row["floor_us"], row["us"], times[f"{learner}/16"]["us"]
                for figure, microseconds in zip(shown.groups(), measured, strict=True):
                    decimals = len(figure.partition(".")[2])
                    assert f"{microseconds / 1000:.{decimals}f}" == figure, (setting["setting"], learner)
                if (setting["setting"], learner) == ("highway-128", "ok:16"):
                    ratios = [row["us"] / row["floor_us"] for row in (row, times["ok:16/16"])]
                rows += 1
    assert rows == page.count(" ms |\n")
    readme = (ROOT / "README.md").read_text()
    assert f"takes {ratios[0]:.1f} times as long as that product with block 1, and a third" in readme
    assert 0.3 < ratios[1] < 0.4
    why, balance = (ROOT / "docs" / "why.md").read_text(), (ROOT / "docs" / "experiments.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| (.*?)(?:, on its way)? \| ([\d,]+) \|$", why, re.MULTILINE)
    assert len(rows) == 5
    for learner, theta, steps in rows:
        for name in re.findall(r"`(.*?)`", learner):
            measured = rf"\| {name} \| \S+ \| {re.escape(theta)}( ± \S+)? \| {steps} \|"
            assert re.search(measured, balance), name


METHODS = {
    "rflo": "`rflo`",
    "eprop": "`eprop`",
    "snap": "`snap:1`",
    "uoro": "`uoro`",
    "pp_prop": "`pp_prop:19`",
    "lru": "`rtrl`, `diagonal`",
    "rtu": "`rtrl`, `rtu`",
    "sketch": "`sketch:16`",
    "tbptt": "`tbptt:25`, in windows",
}
BESIDE = [
    *("braintrace", "jax_rtrl", "rtus", "sketched-rtrl", "PyTorch"),
    *("plain JAX", "plain JAX, transposed"),
]


def test_speeds_beside_other_packages_are_those_of_the_record():
    record = json.loads((ROOT / "benchmarks" / "results" / "peers.json").read_text())
    page, rows = (ROOT / "docs" / "comparison.md").read_text(), []
    for row in record["rows"]:
        name, units, lanes = row["row"].rsplit("-", 2)
        ratios = {label: f"{each['cpu_ratio']:.2f}" for label, each in row["contenders"].items()}
        beside = [ratios.get(label, "") for label in BESIDE]
        if any(beside):
            cells = [METHODS[name], units, lanes, *beside]
            rows.append(re.sub(" +", " ", f"| {' | '.join(cells)} |"))
    assert "\n".join(rows) in page, "the table must be:\n" + "\n".join(rows)
    for package, words in {"jax": "JAX {},", "braintrace": "BrainTrace {},"}.items():
        assert words.format(record["versions"][package]) in page.replace("\n", " ")


def test_the_example_of_an_agent_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("gymnasium")
    script, folder = ROOT / "examples" / "agent.py", tmp_path / "run"
    for episodes, shown in (("2", "episode 2: mean return"), ("3", "of the last 1")):
        words = [sys.executable, str(script), episodes, str(folder)]
        assert shown in subprocess.run(words, capture_output=True, text=True, check=True).stdout


# What the page on adding promises, in a copy of the package to which its steps were applied.
PROMISES = """
import contextlib, io, sys
sys.path.insert(0, {tests!r})
import conftest  # types execute, no key is used twice
import jax
import pytest
import test_testing
import foretrace as ft
from foretrace.cli import main
from foretrace.testing import check_cell, check_learner

jax.config.update("jax_disable_most_optimizations", True)

def shown(line):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(line.split()) == 0, line
    return out.getvalue()

with jax.numpy_dtype_promotion("standard"):  # which Adam needs
    assert "fading(cell, lifetime=T)" in shown("learners")
    assert "fading:10" in shown("explain rnn --hidden 4")
    sizes = "--steps 100 --chunk 50 --lanes 2 --hidden 4"
    assert "fading:10" in shown(f"train copy --learner fading {{sizes}} --out a")
    parity = "train parity --length 2 --cell ugrnn --learner fading:5 --out b"
    assert "ugrnn, 4 units" in shown(f"{{parity}} {{sizes}}")
    exec({source!r}, {{}})
    exec({loop!r}, {{}})
cell = ft.cells.ugrnn(hidden=4, inputs=2)
assert ft.explain(cell).groups == 1
assert "fading:10" in [str(candidate.choice) for candidate in ft.recommend(cell).candidates]
choice = ft.learners.parse("fading:20")
assert choice.spec.name == "fading" and choice.number == 20
with pytest.raises(AssertionError):
    test_testing.test_everything_public_is_in_the_suite_or_excluded_with_a_reason()
exec({entry!r}, vars(test_testing))
test_testing.test_everything_public_is_in_the_suite_or_excluded_with_a_reason()
make, name, claims = test_testing.LEARNERS["fading"]
check_learner(make, test_testing.small(name), **claims)
check_cell(test_testing.small("ugrnn"))
names = {{}}
exec({claim!r}, names)
names["test_of_units_that_forget_at_its_rate_it_is_exact"]()
"""


def test_whoever_follows_the_page_on_adding_has_a_learner_a_cell_a_task_and_a_source(tmp_path):
    page = (ROOT / "docs" / "adding.md").read_text()
    shutil.copytree(SOURCE, tmp_path / "foretrace", ignore=shutil.ignore_patterns("__pycache__"))
    files = dict(re.findall(r"`src/(foretrace/\w+/\w+\.py)`:\n\n```python\n(.*?)```", page, re.DOTALL))
    assert [Path(file).name for file in files] == ["_fading.py", "_ugrnn.py", "_parity.py"]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    fading, ugrnn, entry, claim, loop, source = (
        next(block for block in blocks if block.startswith(start))
        for start in (
            *("from foretrace.learners._fading", "from foretrace.cells._ugrnn", "LEARNERS["),
            *(
                "import jax.numpy as jnp\n\nimport foretrace",
                "import jax\nimport jax.numpy as jnp\nimport optax",
            ),
            "from foretrace.forecast",
        )
    )
    assert len(blocks) == 9, "a program on the page that nothing runs"
    lines = {
        "learners": fading + "__all__ += ['fading']\n",
        "cells": ugrnn + "__all__ += ['ugrnn']\nCELLS['ugrnn'] = ugrnn\n",
        "tasks": "from foretrace.tasks import _parity\nTASKS['parity'] = _parity.SPEC\n",
    }
    for room, text in lines.items():
        with (tmp_path / "foretrace" / room / "__init__.py").open("a") as file:
            file.write(text)
    script = PROMISES.format(tests=str(ROOT / "tests"), entry=entry, claim=claim, loop=loop, source=source)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_one_version_is_everywhere_and_public_packages_list_their_names():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(.*?)\]", changelog, re.MULTILINE)[1] == foretrace.__version__
    assert f"\nversion: {foretrace.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    public = foretrace.__doc__.partition("packages ")[2].partition(";")[0]
    packages = re.findall(r"`([\w.]+)`", public)
    assert len(packages) == 16
    for package in packages:
        assert importlib.import_module(f"foretrace.{package}").__all__, package
