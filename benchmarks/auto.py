"""How near `--block auto` is to the best block: benchmarks/results/auto.json.

    python benchmarks/auto.py

One step with gradient and update at every block that auto chooses among, in turns in one process, in the
loop of `foretrace bench`; what auto chooses costs `auto_over_best` times the best of them.
"""

import json
from pathlib import Path

from foretrace import cells
from foretrace.experiments import _bench as bench
from foretrace.learners import analyse

BLOCKS = (1, 2, 4, 8, 16, 32, 64)
CASES = (
    ("highway-128", "ok:16"),
    ("highway-128", "kf_rtrl"),
    ("highway-128", "uoro"),
    ("highway-256", "ok:8"),
    ("highway-32", "ok:8"),
    ("rnn-256", "ok:8"),
    ("rnn-256", "kf_rtrl"),
    ("lstm-128", "ok:8"),
    ("rtrl-64", "rtrl"),
    ("uoro-256", "uoro"),
)
RESULTS = Path(__file__).resolve().parent / "results" / "auto.json"


def main():
    """Sweeps every case and writes the record."""
    rows = []
    for name, learner in CASES:
        setting = bench.SETTINGS[name]
        cell = getattr(cells, setting.cell)(hidden=setting.hidden, inputs=setting.inputs)
        auto = analyse(cell).best_block(learner, lanes=setting.lanes)
        swept = setting._replace(learners=tuple(f"{learner}/{block}" for block in BLOCKS))
        measured = bench.measure_setting(name, repeats=3, setting=swept, say=lambda line: None)["rows"]
        times = {block: row["us"] for block, row in zip(BLOCKS, measured, strict=False)}
        best = min(times, key=times.__getitem__)
        rows.append(
            {
                "setting": name,
                "learner": learner,
                "auto": auto,
                "best": best,
                "auto_over_best": times[auto] / times[best],
                "us": times,
            }
        )
        print(
            f"{name:12} {learner:8} auto {auto:2}, best {best:2}: {times[auto] / times[best]:.2f} x;  "
            + ", ".join(f"{block}: {us:,.0f} us" for block, us in times.items())
        )
    RESULTS.write_text(json.dumps(bench.environment() | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
