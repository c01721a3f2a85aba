"""The package's shape: imports go one way, every public name is documented, nothing is private."""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import foretrace

SOURCE = Path(foretrace.__file__).parent
# The rooms in order: a module imports only from its own and from those before it.
ORDER = [
    *(
        "_types",
        "_checks",
        "_format",
        "_xla",
        "structure",
        "cells",
        "learners",
        "optim",
        "tasks",
        "training",
        "rl",
        "runs",
    ),
    *("stream", "forecast", "river", "scale", "plotting", "testing", "experiments", "cli"),
]
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [name for _, name, _ in pkgutil.walk_packages([str(SOURCE)], "foretrace.")]


def imports(path):
    """Dotted names that a file imports, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_module_imports_only_from_modules_above_it():
    for path in FILES:
        part = path.relative_to(SOURCE).with_suffix("").parts[0]
        if part == "__init__":
            continue
        for name in imports(path):
            if name.startswith("foretrace.") and name != "foretrace.__version__":
                other = name.split(".")[1]
                assert ORDER.index(other) <= ORDER.index(part), f"{path} imports {name}"


def test_nothing_private_of_jax_and_no_pickle():
    for path in FILES:
        for name in imports(path):
            assert not name.startswith("jax._src"), path
            assert name.split(".")[0] not in {"pickle", "cloudpickle", "dill"}, path


def test_only_one_file_reads_jaxprs():
    readers = [path.name for path in FILES if any("jax.extend" in n for n in imports(path))]
    assert readers == ["_trace.py"]


def test_every_module_and_public_name_is_documented():
    for name in ("foretrace", *NAMES):
        module = importlib.import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", ()):
            found = getattr(module, public)
            if inspect.isclass(found) or inspect.isroutine(found):
                assert inspect.getdoc(found), f"{name}.{public}"


def test_all_is_sorted_and_complete():
    assert sorted(foretrace.__all__) == list(foretrace.__all__)
    for name, found in vars(foretrace).items():
        own = getattr(found, "__module__", "").startswith("foretrace.")
        assert not own or name in foretrace.__all__, name


def test_import_changes_no_global_state_and_loads_nothing_of_the_command_line():
    import subprocess
    import sys

    code = (
        "import jax; before = dict(jax.config.values); import foretrace, sys;"
        "assert dict(jax.config.values) == before;"
        "extra = {'matplotlib', 'plotly', 'rich', 'tyro', 'foretrace.runs._folder', 'foretrace.cli'};"
        "assert not extra & set(sys.modules), extra & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_version_is_the_packages():
    settings = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"] and "version" not in settings["project"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "foretrace.__version__"}
    # A literal, which setuptools reads without importing JAX.
    assert f'__version__ = "{foretrace.__version__}"' in (SOURCE / "__init__.py").read_text()


def test_the_code_in_the_readme_runs():
    text = (SOURCE.parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    names = {}
    exec(blocks[0], names)
    assert names["grads"]["reset"]["recurrent"].shape == (32, 32)
