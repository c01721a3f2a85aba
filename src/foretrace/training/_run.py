"""Runs: chunk after chunk of a trainer, and the folder that keeps what they show."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from foretrace.training._loop import Trainer


def run(trainer: Trainer, key: Any, chunks: int) -> Iterator[dict[str, Any]]:
    """Trains for a number of chunks and yields what each one shows, ready for JSON.

    Args:
        trainer: what to run, on the copy task or another with a curriculum `T`.
        key: a typed key, or an array of them: then all seeds train side by side.
        chunks: number of chunks.

    Yields:
        A dict with `step` (time steps so far), `seconds` (so far, without compilation), `bits`, `T`
        (at the end), `raised` (pairs of a new T and the step at whose period's end it stood),
        `gradient_norm` and `info`. With an array of keys, every measured value is a list with one
        entry per seed.
    """
    seeds = np.shape(key)
    init, chunk = trainer.init, trainer.chunk
    if seeds:
        init, chunk = jax.vmap(init), jax.vmap(chunk)
    carry = jax.jit(init)(key)
    compiled = jax.jit(chunk, donate_argnums=0).lower(carry).compile()
    height, seconds = np.ones(seeds, int), 0.0
    for index in range(chunks):
        begin = time.perf_counter()
        carry, metrics = compiled(carry)
        metrics = jax.device_get(metrics)
        seconds += time.perf_counter() - begin
        curriculum = metrics.task["T"]
        first = index * trainer.steps
        raised = [
            _raises(*pair, first, trainer.period)
            for pair in zip(height.reshape(-1), curriculum.reshape(-1, curriculum.shape[-1]), strict=True)
        ]
        height = curriculum[..., -1]
        yield {
            "step": first + trainer.steps,
            "seconds": round(seconds, 3),
            "bits": metrics.bits.tolist(),
            "T": height.tolist(),
            "raised": raised if seeds else raised[0],
            "gradient_norm": metrics.gradient_norm.tolist(),
            "info": {name: value.tolist() for name, value in metrics.info.items()},
        }


def chunks_for(steps: int, period: int, about: int) -> tuple[int, int]:
    """How to cut `steps` into equal chunks of about `about` steps, all multiples of `period`.

    Returns:
        Steps per chunk and number of chunks; together at least `steps`, and no more than needed.
    """
    periods = -(-steps // period)
    wanted = max(1, min(periods, about // period))

    def waste(size):
        return -(-periods // size) * size - periods, abs(size - wanted)

    size = min(range(max(1, wanted // 2), min(periods, 2 * wanted) + 1), key=waste)
    return size * period, -(-periods // size)


def create_folder(path: Path, config: dict[str, Any]) -> None:
    """Creates the run folder with `config.json`: the configuration and the versions behind it.

    Raises:
        ValueError: if the folder holds a run already or cannot be written.
    """
    if (path / "config.json").exists():
        raise ValueError(
            f"out must be a folder without a run; got {str(path)!r}, which already holds one; "
            f"choose another folder or remove that one."
        )
    versions = {name: importlib.metadata.version(name) for name in ("foretrace", "jax", "optax")}
    versions |= {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config | {"versions": versions})
    except OSError as error:
        raise ValueError(
            f"out must be a folder that can be written; got {str(path)!r}: {error.strerror}; "
            f"choose another folder."
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Writes one JSON document for people to read."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def append_json(path: Path, record: dict[str, Any]) -> None:
    """Appends one line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _raises(before: int, curriculum: Any, first: int, period: int) -> list[list[int]]:
    """Pairs [T, step] where the curriculum rose."""
    previous = np.concatenate([[before], curriculum[:-1]])
    return [
        [int(curriculum[i]), first + (i + 1) * period]
        for i in np.flatnonzero(curriculum > previous).tolist()
    ]
