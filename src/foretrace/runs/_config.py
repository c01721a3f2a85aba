"""The configuration of a run: what is read again, and what must be the same for the run to go on."""

import importlib.metadata
import json
import platform
import warnings
from pathlib import Path
from typing import Any

import jax

from foretrace._checks import UserError
from foretrace.runs import checkpoint

# Where a run is, how it was called, when it is saved and where else its numbers go does not change it.
_MAY_DIFFER = frozenset(
    (
        "out",
        "command",
        "resume",
        "checkpoint_every",
        "on_nonfinite",
        "versions",
        "tensorboard",
        "mesh",
        "engine",
        *("coordinator", "processes", "process", "coordinator_timeout"),
        *("gaps", "on_bad", "source", "heading"),
        *("file", "valid", "test"),  # their checksums may not differ
    )
)


def read_config(path: Path) -> dict[str, Any] | None:
    """The configuration of the run in a folder: None if there is none, empty if it cannot be read."""
    try:
        config = json.loads((path / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def versions() -> dict[str, str]:
    """The versions and the device that a run's numbers depend on."""
    names = {name: importlib.metadata.version(name) for name in ("foretrace", "jax", "optax")}
    return names | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def identity_of(config: dict[str, Any]) -> dict[str, Any]:
    """The entries that have to be the same for a run to go on; of foretrace's version two numbers."""
    version = str(config.get("versions", {}).get("foretrace")).split(".")[:2]
    entries = {name: value for name, value in config.items() if name not in _MAY_DIFFER}
    return entries | {"foretrace": ".".join(version)}


def refuse_other(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises UserError unless the identity of the run in a folder is that of this one."""
    differ = [
        f"{name}: {old.get(name, 'nothing')} there, {new.get(name, 'nothing')} now"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if differ:
        raise UserError(
            f"options must be those of the run in {str(path)!r}; got others ({'; '.join(differ)}); "
            f"foretrace resume takes them from there."
        )


def warn_of_versions(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Warns where a run goes on with other versions or on another device."""
    differ = [
        f"{name} {old.get(name)} there, {new.get(name)} now"
        for name in dict.fromkeys([*new, *old])
        if new.get(name) != old.get(name)
    ]
    if differ:
        warnings.warn(
            f"the run was made elsewhere ({'; '.join(differ)}); it goes on, but not bit for bit",
            checkpoint.CheckpointWarning,
            stacklevel=2,
        )
