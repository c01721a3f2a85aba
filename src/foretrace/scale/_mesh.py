"""Meshes of devices: `lanes`, streams side by side, times `units`, columns of the weights."""

import math
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from foretrace._checks import UserError, check_positive_int

AXES = ("lanes", "units")


def mesh(*, lanes: int = 1, units: int = 1) -> Mesh:
    """A mesh of this job's devices, of all processes, with the axes `lanes` and `units`.

    Neighbours along `units`, which exchange something at every step, are neighbours among the devices.

    Args:
        lanes: parts into which the lanes are divided.
        units: parts into which the columns of the weights are divided.

    Returns:
        The mesh, of the first `lanes` times `units` devices.

    Raises:
        TypeError, ValueError: a number is not an int >= 1, or there are not as many devices.

    Example:
        >>> import foretrace as ft
        >>> dict(ft.scale.mesh(lanes=1, units=1).shape)
        {'lanes': 1, 'units': 1}
    """
    for name, value in {"lanes": lanes, "units": units}.items():
        check_positive_int(name, value, "1 divides nothing")
    devices, wanted = jax.devices(), lanes * units
    if wanted > len(devices):
        remedy = "a smaller mesh, or on a CPU as many virtual devices by JAX_NUM_CPU_DEVICES"
        raise UserError(
            f"mesh must have at most the {len(devices)} devices that there are; got lanes={lanes},"
            f"units={units}, {wanted} of them; use {remedy}."
        )
    local = jax.local_device_count()
    if jax.__version_info__ < (0, 11) and jax.default_backend() == "cpu" and 1 < local <= wanted:
        # A decomposition waits for a thread of a pool that has as many of them as there are devices.
        raise UserError(
            f"mesh must leave one virtual device of the CPU idle with jaxlib before 0.11, where the "
            f"decompositions of all {local} would wait for one another for ever; got lanes={lanes},"
            f"units={units}; set JAX_NUM_CPU_DEVICES={local + 1}, or take Python 3.12 or later."
        )
    if jax.process_count() > 1 and wanted != len(devices):
        raise UserError(
            f"mesh must have all {len(devices)} devices of the {jax.process_count()} processes; got "
            f"lanes={lanes},units={units}, {wanted} of them; start as many processes as it needs."
        )
    array = np.array(devices[:wanted]).reshape(lanes, units)
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * 2)


def parse_mesh(text: str) -> dict[str, int]:
    """Reads `lanes=2,units=4`; an axis that is left out is 1.

    Raises:
        ValueError: it says something else.

    Example:
        >>> import foretrace as ft
        >>> ft.scale.parse_mesh("units=4")
        {'lanes': 1, 'units': 4}
    """
    sizes = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*=\s*0*([1-9]\d{0,5})\s*", part)
        if not match or match[1] not in AXES or match[1] in sizes:
            raise UserError(
                f"mesh must be lanes=N,units=N with ints >= 1, each once; got {text!r}; write "
                "lanes=2,units=4."
            )
        sizes[match[1]] = int(match[2])
    return {name: sizes.get(name, 1) for name in AXES}


def divides(mesh: Mesh, axis: str, size: int) -> bool:
    """Whether an axis of a mesh divides so many lanes or columns."""
    return size % mesh.shape[axis] == 0


def check_lanes(mesh: Mesh, lanes: int | None) -> None:
    """Raises ValueError unless the mesh divides the lanes."""
    count, parts = lanes or 1, mesh.shape["lanes"]
    if count % parts:
        raise UserError(
            f"lanes must be a multiple of the {parts} parts of the mesh; got {count}; use "
            f"{math.ceil(count / parts) * parts}, or a mesh that divides them."
        )
