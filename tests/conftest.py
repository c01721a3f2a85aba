"""Types execute, dtypes and ranks never promote by accident, and no key is used twice."""

import os

# Most of the time goes into compiling programs that then run for milliseconds. The older of the two code
# generators for the CPU takes a third of it; a child of a test inherits the choice.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest
from jaxtyping import install_import_hook

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
