"""The cost of `import foretrace` beside that of `import jax, optax`, which it cannot do without.

    python benchmarks/imports.py [RUNS]

Every import is timed in a process of its own, from its start to its end, the two in turns. Prints medians
in seconds and their ratio, which should be below 1.15.
"""

import statistics
import subprocess
import sys
import time

STATEMENTS = ("import jax, optax", "import foretrace")


def seconds(statement: str) -> float:
    """How long a new interpreter takes for a statement."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main(runs: int) -> None:
    """Prints both medians and the ratio."""
    for statement in STATEMENTS:
        seconds(statement)  # writes bytecode, and brings the files into memory
    rows = [[seconds(statement) for statement in STATEMENTS] for _ in range(runs)]
    before, after = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{STATEMENTS[0]}: {before:.3f} s; {STATEMENTS[1]}: {after:.3f} s; ratio {after / before:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
