"""Types execute, dtypes and ranks never promote by accident, and no key is used twice."""

import os
import subprocess
import sys
import tempfile

import jax
import jaxtyping
import pytest

# Most of the time goes into compiling programs that then run for milliseconds. What was compiled once is
# kept while the tests run, for the commands that they start too; by each process in a folder of its own,
# since one may read a file while another still writes it.
programs = tempfile.TemporaryDirectory(prefix="foretrace-tests-")
for name, value in {
    "jax_compilation_cache_dir": programs.name,
    "jax_persistent_cache_min_compile_time_secs": 0,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# As in the command line, where it says why.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Tests compile without optimising, and with the older of the two code generators for the CPU where there is
# one, which takes a third of the time. JAX reads this once: commands that a test starts run as a user's do.
# XLA ends a process that asks for a flag it does not know, so another process finds out which it knows.
PROBE = """
from foretrace._xla import knows
wanted = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
print(*(f"--{name}={value}" for name, value in wanted.items() if knows(name, value)))
"""
if "FORETRACE_TEST_XLA_FLAGS" not in os.environ:  # else a parallel run's first process has asked
    known = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    os.environ["FORETRACE_TEST_XLA_FLAGS"] = known.stdout.strip()
flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{flags} {os.environ['FORETRACE_TEST_XLA_FLAGS']}"
jax.devices()
os.environ["XLA_FLAGS"] = flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Must run before any test module imports foretrace.
jaxtyping.install_import_hook("foretrace", "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption(
        "--record-refusals",
        action="store_true",
        help="note every refusal that the tests provoke in docs/refusals.json; use it with -n 0",
    )


def pytest_configure(config):
    if config.getoption("--record-refusals"):
        import refusals
        from foretrace._checks import UserError

        config.pluginmanager.register(refusals.Recorder(UserError))


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Programs of one file are of no use to the next, and take gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture
def no_types():
    """Calls reach the code as a user's do, whose types nobody checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Runs one test in float64."""
    with jax.enable_x64(True):
        yield
