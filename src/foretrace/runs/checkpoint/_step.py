"""One checkpoint: a directory with `state.safetensors` and `manifest.json`, every byte of both verified."""

import datetime
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from foretrace._checks import UserError
from foretrace.runs.checkpoint._files import CheckpointError, read_whole, sync_folder, write_new
from foretrace.runs.checkpoint._leaves import CODES, Form, form_of, impl_of, is_key, named_leaves, values_of

# Format 2 has the arrays in pieces, in one file of each process that saved them.
FORMAT, IN_PIECES = 1, 2
_STATE, _MANIFEST = "state.safetensors", "manifest.json"


class Leaf(NamedTuple):
    """A leaf that was read and verified."""

    form: Form
    impl: str | None
    values: np.ndarray


def write_step(folder: Path, tree: Any, **known: Any) -> None:
    """Writes a checkpoint to an empty folder, and waits until it is on the disk.

    Args:
        folder: where to.
        tree: the pytree.
        known: what else the manifest should say, as JSON.
    """
    leaves = named_leaves(tree)
    values = {path: values_of(path, leaf) for path, leaf in leaves.items()}
    state = safetensors.numpy.save(values)
    manifest = {
        **_about(FORMAT, known),
        "bytes": len(state),
        "header_sha256": _sha256(_header(state)),
        "leaves": [
            {
                "path": path,
                "kind": form_of(path, leaf).kind,
                "impl": impl_of(leaf),
                "dtype": values[path].dtype.name,
                "shape": list(values[path].shape),
                "sha256": _sha256(values[path]),
            }
            for path, leaf in leaves.items()
        ],
    }
    write_new(folder / _STATE, state)
    _write_manifest(folder, manifest)


def write_pieces(folder: Path, tree: Any, process: int) -> str:
    """Writes the pieces of a tree that lie on this process's devices, each piece once in all processes.

    Args:
        folder: where to, the same for all processes.
        tree: the pytree, whose arrays may lie on the devices of many processes.
        process: number of this one.

    Returns:
        What `write_whole` needs of this process, as text.
    """
    name, pieces, values = f"state-{process}.safetensors", [], {}
    for path, leaf in named_leaves(tree).items():
        form = form_of(path, leaf)
        data = jax.random.key_data(leaf) if is_key(form.kind) else leaf
        shards = data.addressable_shards if isinstance(data, jax.Array) else []
        own = [(shard.index, shard.data) for shard in shards if shard.replica_id == 0]
        if not isinstance(data, jax.Array) and process == 0:
            own = [((), values_of(path, data))]
        for index, part in own:
            part = np.asarray(part, np.dtype(form.dtype), order="C")
            start = [(axis.start or 0) for axis in index]
            key = f"{len(values)}"
            values[key] = part
            pieces.append(
                {
                    "path": path,
                    "kind": form.kind,
                    "impl": impl_of(leaf),
                    "dtype": form.dtype,
                    "whole": list(form.shape),
                    "file": name,
                    "key": key,
                    "start": start + [0] * (len(form.shape) - len(start)),
                    "shape": list(part.shape),
                    "sha256": _sha256(part),
                }
            )
    state = safetensors.numpy.save(values)
    write_new(folder / name, state)
    return json.dumps({"file": name, "bytes": len(state), "sha256": _sha256(state), "pieces": pieces})


def write_whole(folder: Path, parts: Sequence[str], **known: Any) -> None:
    """Writes the manifest of a checkpoint whose pieces all processes have written.

    Args:
        folder: where they are.
        parts: what `write_pieces` gave in each process.
        known: what else the manifest should say, as JSON.
    """
    each = [json.loads(part) for part in parts]
    pieces = [piece for part in each for piece in part.pop("pieces")]
    _write_manifest(folder, {**_about(IN_PIECES, known), "files": each, "pieces": pieces})


def read_pieces(folder: Path, manifest: dict[str, Any]) -> dict[str, Leaf]:
    """The leaves of a checkpoint in pieces, whatever the mesh and the processes that saved it.

    Raises:
        CheckpointError: if it is damaged; says where.
    """
    leaves: dict[str, Leaf] = {}
    counts: dict[str, int] = {}
    try:
        files = {}
        for file in manifest["files"]:
            state = read_whole(folder / file["file"], file["bytes"])
            if _sha256(state) != file["sha256"]:
                raise CheckpointError(f"{file['file']} differs from its SHA-256")
            files[file["file"]] = dict(safetensors.deserialize(state))
        for piece in manifest["pieces"]:
            path, form = piece["path"], Form(piece["kind"], piece["dtype"], tuple(piece["whole"]))
            data = files[piece["file"]][piece["key"]]["data"]
            values = np.frombuffer(data, np.dtype(form.dtype)).reshape(piece["shape"])
            if path not in leaves:
                leaves[path] = Leaf(form, piece["impl"], np.empty(form.shape, np.dtype(form.dtype)))
            where = tuple(slice(a, a + n) for a, n in zip(piece["start"], piece["shape"], strict=True))
            leaves[path].values[where] = values
            counts[path] = counts.get(path, 0) + values.size
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{_MANIFEST} makes no sense ({error})") from None
    for path, leaf in leaves.items():
        if counts[path] != leaf.values.size:
            raise CheckpointError(f"leaf {path} has {counts[path]:,} of its {leaf.values.size:,} numbers")
    return leaves


def _about(version: int, known: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": version,
        **known,
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in ("foretrace", "jax")},
    }


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_new(folder / _MANIFEST, _text(manifest | {"sha256": hash_of(manifest)}))
    sync_folder(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads what a checkpoint says of itself, and verifies it against its own SHA-256.

    Raises:
        CheckpointError: if it is damaged.
        ValueError: if another version of foretrace wrote it, in another format.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise CheckpointError("it is not a folder but a link or a file")
    raw = read_whole(folder / _MANIFEST)
    manifest: dict[str, Any] = {}
    try:
        manifest = json.loads(raw)
        digest = manifest.pop("sha256")
        intact = digest == hash_of(manifest) and raw == _text(manifest | {"sha256": digest})
        version = manifest["format"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        intact, version = False, None
    if not intact:
        raise CheckpointError(f"{_MANIFEST} differs from its own SHA-256, or is none")
    if version not in (FORMAT, IN_PIECES):
        raise UserError(
            f"checkpoints must have format {FORMAT} or {IN_PIECES}; got {version} in {folder}; load it "
            f"with the version of foretrace that wrote it."
        )
    return manifest


def read_step(folder: Path) -> tuple[dict[str, Any], dict[str, Leaf]]:
    """Reads a checkpoint, and verifies all of it: the manifest, and the leaves by their path.

    Raises:
        CheckpointError: if it is damaged; says where.
        ValueError: if another version of foretrace wrote it, in another format.
    """
    manifest = read_manifest(folder)
    if manifest["format"] == IN_PIECES:
        return manifest, read_pieces(folder, manifest)
    try:
        entries = {entry["path"]: entry for entry in manifest["leaves"]}
        forms = {
            path: Form(entry["kind"], entry["dtype"], tuple(entry["shape"]))
            for path, entry in entries.items()
        }
        sizes = [np.dtype(form.dtype).itemsize * math.prod(form.shape) for form in forms.values()]
        size, hashes = manifest["bytes"], {path: entry["sha256"] for path, entry in entries.items()}
        are_keys = all(_kind(form, entries[path]["impl"]) == form.kind for path, form in forms.items())
        adds_up = sum(sizes) < size <= sum(sizes) + 2**27
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{_MANIFEST} makes no sense ({error})") from None
    if not (are_keys and adds_up):
        reason = (
            "the sizes of its leaves do not add up" if are_keys else "a leaf is no PRNG key of its kind"
        )
        raise CheckpointError(f"{_MANIFEST} makes no sense ({reason})")
    state = read_whole(folder / _STATE, size)
    if _sha256(_header(state)) != manifest["header_sha256"]:
        raise CheckpointError(f"the header of {_STATE} differs from its SHA-256")
    try:
        stored = dict(safetensors.deserialize(state))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{_STATE} is damaged ({error})") from None
    if stored.keys() != forms.keys():
        missing = sorted(stored.keys() ^ forms.keys())
        raise CheckpointError(f"{_STATE} and {_MANIFEST} differ in their leaves: {', '.join(missing)}")
    leaves = {}
    for path, form in forms.items():
        entry = stored[path]
        if (entry["dtype"], tuple(entry["shape"])) != (CODES.get(form.dtype), form.shape):
            stored_form = f"{entry['dtype']} {tuple(entry['shape'])}"
            raise CheckpointError(f"leaf {path} is {stored_form} in {_STATE} and {form} in {_MANIFEST}")
        if _sha256(entry["data"]) != hashes[path]:
            raise CheckpointError(f"leaf {path} differs from its SHA-256")
        values = np.frombuffer(entry["data"], np.dtype(form.dtype)).reshape(form.shape)
        leaves[path] = Leaf(form, entries[path]["impl"], values)
    return manifest, leaves


def hash_of(content: Any) -> str:
    """SHA-256 of a JSON document, whatever its spaces."""
    return _sha256(_text(content))


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _kind(form: Form, impl: str | None) -> str:
    """The leaf's kind; for a PRNG key, the kind that its data and impl give."""
    if not is_key(form.kind):
        return form.kind
    data = jax.ShapeDtypeStruct(form.shape, np.dtype(form.dtype))
    return str(jax.eval_shape(partial(jax.random.wrap_key_data, impl=impl), data).dtype)


def _header(state: bytes) -> bytes:
    """The length of a safetensors header and the header, or what there is of them."""
    return state[: 8 + int.from_bytes(state[:8], "little")]


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
