"""Between a pytree and named arrays of plain dtypes; a PRNG key is its data and the name of its kind.

safetensors has no complex128: its real and imaginary parts are stored on a last axis.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError, UserTypeError

# The dtypes that can be stored, each with its name in a safetensors header.
CODES = {
    "bool": "BOOL",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
}
_PAIRS = "complex128"
_SCALARS = {bool: "bool", int: "int64", float: "float64"}


class Form(NamedTuple):
    """Kind, dtype and shape of a leaf.

    Attributes:
        kind: "array"; "bool", "int" or "float" for a Python number; `key<fry>` or the like for PRNG keys;
            "complex128".
        dtype: of its values, for a key of its data, for complex128 float64.
        shape: of its values.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self):
        return f"{self.dtype if self.kind == 'array' else self.kind} {self.shape or ''}".strip()


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves by their path, such as `['cell']['bias']` or `.count`.

    Raises:
        ValueError: if two leaves have the same path.
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in pairs}
    if len(leaves) < len(pairs):
        raise UserError("tree must have a path of its own for every leaf; got one twice; rename it.")
    return leaves


def form_of(path: str, leaf: Any) -> Form:
    """The form of a leaf, or of a `jax.ShapeDtypeStruct` in its place.

    Raises:
        TypeError: if it cannot be stored.
    """
    if type(leaf) in _SCALARS:
        return Form(type(leaf).__name__, _SCALARS[type(leaf)], ())
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        raise UserTypeError(
            f"tree must have arrays, PRNG keys and Python numbers as leaves; got {type(leaf).__name__} at "
            f"{path or 'its root'}; leave it out or make it an array."
        )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return Form(str(leaf.dtype), data.dtype.name, data.shape)
    name = np.dtype(leaf.dtype).name
    if name == _PAIRS:
        return Form(_PAIRS, "float64", (*leaf.shape, 2))
    if name not in CODES:
        raise UserTypeError(
            f"tree must have leaves of {', '.join(CODES)} or {_PAIRS}; got {name} at {path}; convert it."
        )
    return Form("array", name, tuple(leaf.shape))


def values_of(path: str, leaf: Any) -> np.ndarray:
    """The values of a leaf in the computer's memory, in one piece.

    Raises:
        TypeError: if it cannot be stored.
        ValueError: if a Python int has more than 64 bits.
    """
    if type(leaf) is int and not -(2**63) <= leaf < 2**63:
        raise UserError(f"an int in tree must fit in 64 bits; got {leaf} at {path}; store it in parts.")
    form = form_of(path, leaf)
    if is_key(form.kind):
        leaf = jax.random.key_data(leaf)
    if form.kind == _PAIRS:
        leaf = np.stack([np.real(leaf), np.imag(leaf)], axis=-1)
    return np.asarray(leaf, dtype=np.dtype(form.dtype), order="C")


def leaf_of(values: np.ndarray, kind: str, impl: str | None, like: Any) -> Any:
    """A leaf from its values: a Python number, a NumPy array where `like` is one, else a JAX array.

    Raises:
        ValueError: if JAX would change the dtype.
    """
    if kind in ("bool", "int", "float"):
        return values.item()
    if kind == _PAIRS:
        values = values[..., 0] + 1j * values[..., 1]
    if isinstance(like, np.ndarray | np.generic):
        return values.copy() if isinstance(like, np.ndarray) else values[()]
    if getattr(like, "weak_type", False) and values.ndim == 0:
        leaf = jnp.asarray(values.item())
    elif jax.dtypes.canonicalize_dtype(values.dtype) != values.dtype:
        raise UserError(f"like has {values.dtype} leaves, which need float64; set jax_enable_x64.")
    else:
        # A copy: JAX may otherwise use the memory of the file's bytes, and donate it.
        leaf = jnp.array(values)
    sharding = getattr(like, "sharding", None)
    if sharding is not None and len(sharding.device_set) > 1:
        # Piece by piece, since some of them may lie on devices of other processes.
        leaf = jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
    return jax.random.wrap_key_data(leaf, impl=impl) if is_key(kind) else leaf


def impl_of(leaf: Any) -> str | None:
    """JAX's name for the kind of a PRNG key; None for other leaves."""
    is_prng_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    return str(jax.random.key_impl(leaf)) if is_prng_key else None


def is_key(kind: str) -> bool:
    """Whether a form's kind is that of PRNG keys."""
    return kind.startswith("key<")
