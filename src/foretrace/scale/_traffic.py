"""What a compiled program sends between devices, read off its collectives, and what each device holds."""

import math
import re
from typing import Any, NamedTuple

_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
_SHAPE = re.compile(r"(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_OP = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({_KINDS})(-start)?\(")
_WHILE = re.compile(r" while\(.*?body=%?([\w.-]+)")
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_CALLS = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .* )?\{\s*$")
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_NAMED = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")


class Collective(NamedTuple):
    """One collective of a compiled program.

    Attributes:
        kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
        bytes: of its result on one device.
        devices: that take part in it together.
        times: how often it runs in one call of the program.
    """

    kind: str
    bytes: int
    devices: int
    times: float

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one call, by the ring algorithms: 2 (n - 1) / n of a sum's."""
        n = self.devices
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1,  # of the result, one n-th of what goes in
            "collective-permute": 1,
        }.get(self.kind, (n - 1) / n)
        return share * self.bytes * self.times


def collectives(compiled: Any, *, loop: float = 1.0) -> list[Collective]:
    """The collectives of a compiled program that send something to another device.

    Args:
        compiled: what `jax.jit(f).lower(..).compile()` gives.
        loop: rounds of a loop whose number is not known when it is compiled, such as the way back through
            the present block, whose mean is half a block.

    Returns:
        One entry for each, with how often it runs: those of loops count as often as the loop turns, those
        of branches as if every branch were taken.
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    bodies, entry = _computations(text)
    found: list[Collective] = []

    def visit(name: str, times: float) -> None:
        for line in bodies.get(name, ()):
            if match := _OP.match(line):
                size, devices = _size(match[1], bool(match[3])), _devices(line)
                if devices > 1:
                    found.append(Collective(match[2], size, devices, times))
            if match := _WHILE.search(line):
                trips = _TRIPS.search(line)
                rounds = float(trips[1]) if trips else loop
                visit(match[1], times * rounds)
            else:
                called = _CALLS.findall(line)
                if branches := _BRANCHES.search(line):
                    called += re.findall(r"[\w.-]+", branches[1])
                if not _OP.match(line):  # a reduction's own arithmetic sends nothing
                    for other in called:
                        visit(other, times)

    visit(entry, 1.0)
    return found


def sent(compiled: Any, *, loop: float = 1.0) -> float:
    """Bytes that each device sends in one call of a compiled program; see `collectives`."""
    return sum((each.sent for each in collectives(compiled, loop=loop)), 0.0)


def held(compiled: Any) -> dict[str, int]:
    """Bytes on each device: `arguments` of a compiled program, its `results`, and `temporary` ones."""
    memory = compiled.memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation of a program as text, and the name of the first to run."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if match := _HEAD.match(line):
            lines = bodies[match[2]] = []
            entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            lines = []
        else:
            lines.append(line)
    return bodies, entry


def _size(shapes: str, is_start: bool) -> int:
    """Bytes of a result; that of a start lists what goes in first, and both are as many."""
    each = [
        _bytes(kind) * math.prod(map(int, filter(None, dims.split(","))))
        for kind, dims in _SHAPE.findall(shapes)
    ]
    return sum(each[len(each) // 2 :] if is_start and len(each) > 1 else each)


def _bytes(kind: str) -> int:
    return _BYTES.get(kind) or max(1, int(re.sub(r"\D", "", kind)) // 8)


def _devices(line: str) -> int:
    """How many devices take part together."""
    if match := _GROUPS.search(line):
        return match[1].count(",") + 1
    if match := _IOTA.search(line):
        return int(match[2])
    if match := _NAMED.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        # A part of an axis names its size itself, as 'units':(1)2.
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[name]) for name, part in parts)
    return 2  # a permutation between pairs
