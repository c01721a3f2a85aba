"""Types execute, dtypes and ranks never promote by accident, and no key is used twice."""

import os
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

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

# The older of the two code generators for the CPU takes a third of the time, and half of that where it does
# not optimise. JAX reads this once: commands that a test starts run as those of a user.
flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
jax.devices()
os.environ["XLA_FLAGS"] = flags

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Must run before any test module imports foretrace.
install_import_hook("foretrace", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Programs of one file are of no use to the next, and take gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Runs one test in float64."""
    with jax.enable_x64(True):
        yield
