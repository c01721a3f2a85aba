"""A network on devices that are not here: bytes on each, operations, and what each sends.

The step of a learner is compiled for a mesh of virtual devices of this CPU, from shapes alone, and read: no
number of it is ever computed. It is done in a process of its own, whose CPU has as many devices.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from foretrace._checks import UserError
from foretrace._types import Cell, at_phase
from foretrace.learners import Choice, analyse, parse
from foretrace.scale._layout import Layout
from foretrace.scale._mesh import check_lanes
from foretrace.scale._mesh import mesh as mesh_of
from foretrace.scale._shard import shard
from foretrace.scale._traffic import collectives


class Device(NamedTuple):
    """What a device can do at most, by its maker's data sheet.

    Attributes:
        operations: floating-point operations per second, of matrix products in TF32 without sparsity, which
            JAX uses for float32 by default.
        memory: bytes.
        bandwidth: of its memory, bytes per second.
        link: bytes per second that it sends to others, in one direction.
    """

    operations: float
    memory: float
    bandwidth: float
    link: float


DEVICES = {
    "a100": Device(156e12, 80e9, 2.0e12, 300e9),
    "h100": Device(494e12, 80e9, 3.35e12, 450e9),
    "h200": Device(494e12, 141e9, 4.8e12, 450e9),
}


class Plan(NamedTuple):
    """One learner on one mesh; all numbers are of one device.

    Attributes:
        learner: its name.
        held: bytes of parameters, influence and window.
        temporary: bytes beside them while a block runs, as the compiler for this CPU has it.
        operations: floating-point operations per step, leading terms, if all are divided.
        sent: bytes sent per step, by the ring algorithms.
    """

    learner: str
    held: int
    temporary: int
    operations: float
    sent: float

    def seconds(self, device: Device) -> dict[str, float]:
        """The least time of a step by each limit: compute, memory (all that is held read once), links."""
        return {
            "compute": self.operations / device.operations,
            "memory": self.held / device.bandwidth,
            "links": self.sent / device.link,
        }


def plan(cell: Cell, learner: str, sizes: dict[str, int], lanes: int) -> Plan:
    """Compiles a block of steps, each with its gradient and an update, for a mesh, and reads it.

    Args:
        cell: the dynamics.
        learner: its name, such as "ok:8/16".
        sizes: of the mesh, `lanes` and `units`; as many devices must be here, virtual ones will do.
        lanes: number of streams.

    Raises:
        UserError: the mesh does not divide lanes or columns, or the cell is not one for this learner.
    """
    choice, mesh = parse(learner), mesh_of(**sizes)
    learned, layout = choice.build(cell), Layout(cell, mesh)
    check_lanes(mesh, lanes)
    sharded = shard(learned, mesh, cell)

    def block(params, state, xs, credits):
        def step(carry, inputs):
            (params, state), (index, x, credit) = carry, inputs
            state = sharded.advance(params, at_phase(state, index), x)
            gradient = sharded.grad(params, state, credit)
            return (jax.tree.map(jnp.subtract, params, gradient), state), None

        steps = jnp.arange(learned.block), xs, credits
        (params, state), _ = jax.lax.scan(step, (params, state), steps)
        state, _ = sharded.end_block(params, state)
        where = layout.params(params), layout.state(state, learned)
        return jax.lax.with_sharding_constraint((params, state), where)

    def shaped(tree, where):
        return jax.tree.map(lambda a, at: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), tree, where)

    def streamed(tree):
        at = NamedSharding(mesh, PartitionSpec(None, "lanes"))
        shape = lambda a: jax.ShapeDtypeStruct((learned.block, lanes, *a.shape), a.dtype, sharding=at)  # noqa: E731
        return jax.tree.map(shape, tree)

    params = jax.eval_shape(cell.init, jax.random.key(0))
    state = jax.eval_shape(lambda p: learned.init(jax.random.key(0), p, lanes=lanes), params)
    arguments = (
        shaped(params, layout.params(params)),
        shaped(state, layout.state(state, learned)),
        streamed(jax.eval_shape(cell.example_input)),
        streamed(jax.eval_shape(cell.initial_hidden)),
    )
    compiled = jax.jit(block).lower(*arguments).compile()
    leaves = [a for a in jax.tree.leaves(arguments[:2]) if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)]
    held = sum(_size(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves)
    sent = sum(each.sent for each in collectives(compiled, loop=(learned.block + 1) / 2))
    operations = analyse(cell).cost(choice, lanes=lanes).operations / mesh.size
    memory: Any = compiled.memory_analysis()
    return Plan(learner, held, memory.temp_size_in_bytes, operations, sent / learned.block)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def plan_elsewhere(
    cell: dict[str, Any], learners: Sequence[str], sizes: dict[str, int], lanes: int
) -> list[Plan]:
    """`plan` for several learners, in a process whose CPU has as many virtual devices as the mesh.

    Args:
        cell: name of one of `foretrace.cells.CELLS` under "name", and its arguments.
        learners: names.
        sizes: of the mesh.
        lanes: number of streams.
    """
    words = json.dumps({"cell": cell, "learners": list(learners), "sizes": sizes, "lanes": lanes})
    devices = sizes["lanes"] * sizes["units"]
    # And one more, which a mesh of virtual devices may have to leave idle.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices + 1), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-m", "foretrace.scale._plan", words],
        capture_output=True,
        text=True,
        env=environment,
    )
    if run.returncode == 2:
        raise UserError(run.stderr.strip().splitlines()[-1])
    if run.returncode:
        raise RuntimeError(f"the compiler for {devices} devices failed:\n{run.stderr}")
    return [Plan(*json.loads(line)) for line in run.stdout.splitlines()]


def _main(words: str) -> int:
    from foretrace import cells

    options = json.loads(words)
    name = options["cell"].pop("name")
    try:
        cell = cells.CELLS[name](**options["cell"])
        for learner in options["learners"]:
            print(json.dumps(plan(cell, learner, options["sizes"], options["lanes"])), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def named(choice: str, cell: Cell, lanes: int) -> str:
    """A learner's name with the block that suits the cell, where it leaves it open."""
    parsed: Choice = parse(choice)
    if not parsed.spec.takes_block or parsed.block:
        return str(parsed)
    return str(parsed._replace(block=analyse(cell).best_block(parsed, lanes=lanes)))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
