"""A folder of checkpoints: the newest and the best are kept, and the newest one that is whole is loaded."""

import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from foretrace._checks import UserError, check_positive_int
from foretrace.runs import _together
from foretrace.runs.checkpoint._files import CheckpointError, sync_folder
from foretrace.runs.checkpoint._leaves import form_of, leaf_of, named_leaves
from foretrace.runs.checkpoint._step import (
    Leaf,
    read_manifest,
    read_step,
    write_pieces,
    write_step,
    write_whole,
)


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, and an older one is used in its place."""


class MissingCheckpointError(UserError, FileNotFoundError):
    """A folder has no checkpoint."""


class Restored(NamedTuple):
    """A checkpoint that was loaded.

    Attributes:
        tree: like the tree that was saved.
        step: its number.
        info: what was saved with it as JSON.
    """

    tree: Any
    step: int
    info: dict[str, Any]


def save(
    path: str | os.PathLike,
    tree: Any,
    *,
    step: int | None = None,
    keep: int = 3,
    loss: float | None = None,
    info: dict[str, Any] | None = None,
) -> Path:
    """Saves a pytree as the newest checkpoint of a folder; it is on the disk when this returns.

    A crash at any instant leaves the checkpoints that were there before.

    Args:
        path: the folder, created; one process at a time may save to it.
        tree: a pytree of arrays, PRNG keys and Python numbers. Where there are many processes (see
            `jax.distributed`), all call this with their parts of it, and see one folder: each writes what
            lies on its devices, and the checkpoint is there when all have.
        step: its number, above that of the checkpoints that are there; one more unless given.
        keep: how many checkpoints stay, this one included; older ones are removed.
        loss: what to call the best by; the checkpoint with the least loss stays too.
        info: anything JSON can say, to be saved with it.

    Returns:
        The directory of this checkpoint.

    Raises:
        TypeError: if a leaf or `info` cannot be stored, or `keep` is not an int.
        ValueError: if a number is out of range.
        CheckpointError: if it could not be written; the older checkpoints are whole.

    Example:
        >>> import tempfile, jax, foretrace as ft
        >>> state = {"w": jax.numpy.ones(3), "key": jax.random.key(0)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = ft.save(folder, state)
        ...     state = ft.load(folder, like=state)
    """
    path = Path(path)
    check_positive_int("keep", keep, "1 keeps this one and the best")
    if step is not None and not 0 <= step < 10**12:
        raise UserError(f"step must be an int from 0 to 10**12 - 1; got {step}; leave it out to count on.")
    if _together.count() > 1:
        return _save_together(path, tree, step, keep, loss, info)
    temporary = path / f".tmp-{os.getpid()}"
    try:
        checkpoints = steps(path)
        step = max(checkpoints, default=-1) + 1 if step is None else step
        path.mkdir(parents=True, exist_ok=True)
        for rest in path.glob(".tmp-*"):
            shutil.rmtree(rest, ignore_errors=True)
        _set_aside(path, {other: at for other, at in checkpoints.items() if other >= step})
        temporary.mkdir()
        known = {"step": step, "loss": loss if loss == loss else None, "info": info or {}}
        write_step(temporary, tree, **known)
        temporary.rename(path / _name(step))
        sync_folder(path)
        if not checkpoints:
            sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint could not be written to {str(path)!r}: {error.strerror or error}; the older "
            f"checkpoints are whole; give it room and permission."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(path, keep)
    return path / _name(step)


def _save_together(
    path: Path, tree: Any, step: int | None, keep: int, loss: float | None, info: dict[str, Any] | None
) -> Path:
    """`save` by all processes of a job: each its pieces, the first the manifest, and the name at last."""
    if step is None:
        raise UserError("step must be given where many processes save together; got None; count them.")
    temporary, first = path / f".tmp-{step:012d}-pieces", _together.is_first()

    def prepare():
        checkpoints = steps(path)
        path.mkdir(parents=True, exist_ok=True)
        for rest in path.glob(".tmp-*"):
            shutil.rmtree(rest, ignore_errors=True)
        _set_aside(path, {other: at for other, at in checkpoints.items() if other >= step})
        temporary.mkdir()

    def finish():
        known = {"step": step, "loss": loss if loss == loss else None, "info": info or {}}
        write_whole(temporary, parts, **known)
        temporary.rename(path / _name(step))
        sync_folder(path)
        _prune(path, keep)

    def attempt(call):
        try:
            return call()
        except OSError as error:
            if isinstance(error, UserError):
                raise
            raise CheckpointError(
                f"checkpoint could not be written to {str(path)!r}: {error.strerror or error}; the older "
                f"checkpoints are whole; give it room and permission."
            ) from error

    nothing = lambda: None  # noqa: E731
    _together.refuse_together(lambda: attempt(prepare if first else nothing))
    piece = _together.refuse_together(
        lambda: attempt(lambda: write_pieces(temporary, tree, jax.process_index()))
    )
    parts = _together.gathered(piece)
    _together.refuse_together(lambda: attempt(finish if first else nothing))
    return path / _name(step)


def load(path: str | os.PathLike, like: Any) -> Any:
    """Loads the newest checkpoint of a folder that is whole, bit for bit what was saved.

    Every byte is verified first. A damaged checkpoint is named in a `CheckpointWarning`, and the one
    before it is used.

    Args:
        path: the folder that was given to `save`.
        like: a pytree of the same structure, shapes and dtypes; only these are read. What
            `jax.eval_shape` gives will do. NumPy arrays come back where it has NumPy arrays.

    Returns:
        The tree.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        CheckpointError: if none is whole.
        ValueError: if `like` differs from what was saved; says in what.
    """
    return restore(path, like).tree


def restore(path: str | os.PathLike, like: Any) -> Restored:
    """Loads as `load` does, with the step and what was saved beside the tree."""
    return restore_as(path, lambda info: like)


def restore_as(path: str | os.PathLike, like_for: Callable[[dict[str, Any]], Any]) -> Restored:
    """Loads as `restore` does, with a `like` that follows from what was saved beside the tree."""
    path = Path(path)
    checkpoints = steps(path)
    if not checkpoints:
        raise MissingCheckpointError(
            f"path must be a folder with checkpoints; got {str(path)!r}; save one first."
        )
    damages = []
    for step, folder in sorted(checkpoints.items(), reverse=True):
        if damages:
            warnings.warn(f"{damages[-1]}; the one before it is used", CheckpointWarning, stacklevel=4)
        try:
            info, leaves = _read(step, folder)
        except CheckpointError as error:
            damages.append(f"checkpoint {str(folder)!r} is damaged: {error}")
        else:
            return Restored(_tree(leaves, like_for(info), folder), step, info)
    raise CheckpointError(f"no checkpoint is whole. {'. '.join(damages)}.")


def steps(path: str | os.PathLike) -> dict[int, Path]:
    """The checkpoints of a folder by their step, whole or not."""
    path = Path(path)
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    return {int(name[5:]): path / name for name in names if re.fullmatch(r"step-[0-9]{12}", name)}


def newest_info(path: str | os.PathLike) -> dict[str, Any] | None:
    """What was saved beside the newest checkpoint, without its arrays; None if there is no whole one.

    The run may go on meanwhile: a checkpoint that is removed while it is read is left out.
    """
    for _, folder in sorted(steps(path).items(), reverse=True):
        try:
            return read_manifest(folder)["info"]
        except (CheckpointError, UserError):
            continue
    return None


def _read(step: int, folder: Path) -> tuple[dict[str, Any], dict[str, Leaf]]:
    """The info of a checkpoint and its leaves; raises as `read_step` does."""
    manifest, leaves = read_step(folder)
    if manifest.get("step") != step or not isinstance(manifest.get("info"), dict):
        raise CheckpointError(f"its manifest is that of step {manifest.get('step')}")
    return manifest["info"], leaves


def _tree(leaves: dict[str, Leaf], like: Any, folder: Path) -> Any:
    """The tree of `like` with the leaves that were read."""
    wanted = named_leaves(like)
    forms = {path: str(form_of(path, leaf)) for path, leaf in wanted.items()}
    stored = {path: str(leaf.form) for path, leaf in leaves.items()}
    differ = [
        f"{path}: {stored.get(path, 'nothing')} saved, {forms.get(path, 'nothing')} in like"
        for path in dict.fromkeys([*stored, *forms])
        if stored.get(path) != forms.get(path)
    ]
    if differ:
        more = f" and {len(differ) - 8} more" if len(differ) > 8 else ""
        raise UserError(
            f"like must have the leaves of {str(folder)!r}; got others ({'; '.join(differ[:8])}{more}); "
            f"build it as it was when it was saved."
        )
    new_leaves = [
        leaf_of(leaves[path].values, leaves[path].form.kind, leaves[path].impl, wanted[path])
        for path in wanted
    ]
    return jax.tree.unflatten(jax.tree.structure(like), new_leaves)


def _set_aside(path: Path, later: dict[int, Path]) -> None:
    """Renames damaged checkpoints that are in the way of a run that went on from before them."""
    for step, folder in later.items():
        try:
            _read(step, folder)
        except CheckpointError:
            aside = path / f"damaged-{step:012d}"
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        else:
            raise UserError(
                f"step must be above {max(later)}, the newest checkpoint of {str(path)!r}; got "
                f"{min(later)} or less; save to another folder."
            )


def _prune(path: Path, keep: int) -> None:
    """Removes all but the newest checkpoints and the best; what cannot be removed stays."""
    checkpoints = steps(path)
    losses = {}
    for other, folder in checkpoints.items():
        try:
            losses[other] = read_manifest(folder).get("loss")
        except (CheckpointError, ValueError):
            continue
    known = {other: loss for other, loss in losses.items() if isinstance(loss, int | float)}
    stay = {
        *sorted(checkpoints)[-keep:],
        *([min(known, key=lambda other: (known[other], -other))] if known else []),
    }
    for other in checkpoints.keys() - stay:
        # Renamed first: a crash while removing must not leave half a checkpoint under its name.
        rest = path / f".tmp-{other:012d}-removed"
        try:
            checkpoints[other].rename(rest)
        except OSError:
            continue
        shutil.rmtree(rest, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:012d}"
