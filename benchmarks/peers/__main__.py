"""foretrace beside other implementations of the same methods, and beside plain JAX, in one process.

    python benchmarks/peers                    # all rows
    python benchmarks/peers rflo-256-32 lru-1024-32 --rounds 7 --out peers.json

A row is a method, a number of units and a number of lanes; inputs have 32 entries. Every contender of a
row takes steps of a stream, each of them forward, influence and gradient, whose sum it hands out, in one
compiled loop. The contenders take turns, so that other load of the machine falls on all of them. Two
clocks: the wall's, and the processor time of all threads, which other load disturbs less.

A peer is a module of this folder with `NAME`, `PACKAGE` and `contenders(row)`, which gives those that it
has, by their labels. One whose package cannot be imported is left out, and named. Peers that are the code
of papers, on no package index and without versions, are clones on PYTHONPATH; their modules say which.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import ours
from rows import ROWS, Contender

PEERS = ("plain_jax", "braintrace_peer", "torch_peer", "jax_rtrl_peer", "rtus_peer", "sketched_rtrl_peer")
_LINE = "{:14} {:25} {:>14} {:>14} {:>7} {:>10}"


class Timing(NamedTuple):
    """Microseconds per step, one figure per round."""

    wall: list[float]
    processor: list[float]


def main() -> None:
    """Parses the rows, times them, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--out", type=Path, help="a JSON file for the record")
    options = parser.parse_args()
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"ROW must be one of {', '.join(ROWS)}; got {unknown[0]!r}")
    modules = [ours]
    for name in PEERS:
        peer = importlib.import_module(name)
        try:
            importlib.import_module(peer.PACKAGE)
        except ImportError as error:
            print(f"{peer.NAME} is left out: {error}")
        else:
            modules.append(peer)
    print(_LINE.format("row", "contender", "wall, us/step", "cpu, us/step", "ratio", "cpu ratio"))
    packages = {m.PACKAGE: sys.modules[m.PACKAGE] for m in modules}
    versions = {name: p.__version__ for name, p in packages.items() if hasattr(p, "__version__")}
    record: dict[str, Any] = {"versions": versions, "rows": []}
    for name in options.rows or ROWS:
        record["rows"].append(_measure(name, modules, options.rounds))
        if options.out:  # after every row, so that what was measured is there whatever happens
            options.out.write_text(json.dumps(record, indent=1) + "\n")


def _measure(name: str, modules: list[Any], rounds: int) -> dict[str, Any]:
    """Times one row, prints a line per contender, and gives the record."""
    contenders: dict[str, Contender] = {}
    for module in modules:
        for label, contender in module.contenders(ROWS[name]).items():
            contenders[label] = _repeated(contender)
    timings = _take_turns(contenders, rounds)
    mine = next(iter(timings.values()))
    lines = {}
    for label, timing in timings.items():
        # A ratio of every turn, then their median: load that lasts a while is in both.
        ratio = float(np.median(np.array(timing.wall) / np.array(mine.wall)))
        processor_ratio = float(np.median(np.array(timing.processor) / np.array(mine.processor)))
        wall, processor = float(np.median(timing.wall)), float(np.median(timing.processor))
        shown = (f"{number:.2f}" for number in (wall, processor, ratio, processor_ratio))
        print(_LINE.format(name, label, *shown), flush=True)
        lines[label] = {"wall_us": wall, "cpu_us": processor, "ratio": ratio, "cpu_ratio": processor_ratio}
    return {"row": name, "contenders": lines}


def _take_turns(contenders: dict[str, Contender], rounds: int) -> dict[str, Timing]:
    timings = {label: Timing([], []) for label in contenders}
    carries = {label: contender.carry for label, contender in contenders.items()}
    for turn in range(rounds + 1):  # the first one is a warm-up
        for label, contender in contenders.items():
            wall, processor = time.perf_counter(), time.process_time()
            carries[label] = contender.run(carries[label])
            if turn:
                timings[label].wall.append((time.perf_counter() - wall) / contender.steps * 1e6)
                timings[label].processor.append((time.process_time() - processor) / contender.steps * 1e6)
    return timings


def _repeated(contender: Contender, seconds: float = 0.1) -> Contender:
    """The same contender, run so often that it can be timed."""
    carry = contender.run(contender.carry)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        carry, count = contender.run(carry), count + 1
    run: Callable[[Any], Any] = contender.run

    def several(carry):
        for _ in range(count):
            carry = run(carry)
        return carry

    return Contender(several, carry, contender.steps * count)


if __name__ == "__main__":
    main()
