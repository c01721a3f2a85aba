"""Checkpoints that notice every flipped bit: `save` and `load` any pytree, without pickle.

A folder holds one directory per step, `step-000000000100`, with the arrays in `state.safetensors` and,
in `manifest.json`, the path, shape, dtype and SHA-256 of every leaf. A directory is written under a
temporary name, flushed to the disk and renamed, so that a crash at any instant leaves the older ones.
One process writes to a folder.
"""

from foretrace.runs.checkpoint._files import CheckpointError, replace_file
from foretrace.runs.checkpoint._step import hash_of
from foretrace.runs.checkpoint._store import (
    CheckpointWarning,
    Restored,
    load,
    newest_info,
    restore,
    restore_as,
    save,
    steps,
)

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "Restored",
    "hash_of",
    "load",
    "newest_info",
    "replace_file",
    "restore",
    "restore_as",
    "save",
    "steps",
]
