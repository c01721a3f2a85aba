"""Draws docs/rooms.png, the rooms of the package and who imports whom, from the code: run it from anywhere.

    python docs/draw_rooms.py

The picture carries its data, `describe()`, as its PNG description, which a test compares with the code.
"""

import ast
import itertools
import random
import textwrap
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "foretrace"
PICTURE = Path(__file__).parent / "rooms.png"
FILES = "one file each"  # stands for the modules that lie beside the rooms
WIDTH, HEIGHT = 2.3, 1.25  # of a box, where neighbours are 2.5 and floors 1.9 apart


def rooms() -> dict[str, str]:
    """The question that each room answers: the first sentence of its docstring."""
    questions = {}
    for path in sorted(SOURCE.glob("*/__init__.py")):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        questions[path.parent.name] = text[: text.find("?") + 1]
    return questions


def arrows() -> dict[str, set[str]]:
    """The rooms that each room imports from; `FILES` for modules beside the rooms."""
    names = rooms()
    imported: dict[str, set[str]] = {name: set() for name in (*names, FILES)}
    for room in names:
        for path in (SOURCE / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    modules = [f"{node.module}.{alias.name}" for alias in node.names]
                elif isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                else:
                    continue
                parts = [module.split(".")[1] for module in modules if module.startswith("foretrace.")]
                imported[room] |= {part if part in names else FILES for part in parts}
        imported[room] -= {room}
    return imported


def below(imported: dict[str, set[str]], room: str) -> set[str]:
    """All rooms that a room reaches."""
    return imported[room].union(*(below(imported, other) for other in imported[room]))


def shown(imported: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that do not follow from others."""
    return [
        (room, other)
        for room, others in imported.items()
        for other in sorted(others)
        if not any(other in below(imported, via) for via in others)
    ]


def describe() -> str:
    """The data of the picture as text: a line for each room, then one for each of its arrows."""
    imported = arrows()
    lines = [f"{name}: {question}" for name, question in rooms().items()]
    return "\n".join([*lines, *(f"{room} -> {other}" for room, other in shown(imported))])


def place(imported: dict[str, set[str]]) -> dict[str, tuple[float, int]]:
    """A place for each room, above all that it imports: arrows are short, few cross or run behind boxes."""

    def floor(room: str) -> int:
        return 1 + max(map(floor, imported[room]), default=-1)

    floors: dict[int, list[str]] = {}
    for room in imported:
        floors.setdefault(floor(room), []).append(room)
    slots = max(map(len, floors.values()))
    floors = {n: row + [""] * (slots - len(row)) for n, row in floors.items()}  # "" lets an arrow through
    edges = [(a, b) for a, b in shown(imported) if b != FILES]

    def cost(rows: dict[int, list[str]]) -> float:
        at = {room: (i, n) for n, row in rows.items() for i, room in enumerate(row) if room}
        lines = [(*at[a], *at[b]) for a, b in edges]
        total = sum(abs(x - u) for x, _, u, _ in lines)
        for x, y, u, v in lines:
            for p, q in at.values():
                spots = (x + (u - x) * (y - q + d) / (y - v) - p for d in (-0.3, 0, 0.3))
                total += 20 * (v < q < y and any(abs(spot) < 0.46 for spot in spots))
        for (a, b, c, d), (e, f, g, h) in itertools.combinations(lines, 2):
            total += 4 * (b == f and d == h and (a - e) * (c - g) < 0)
        return total

    swaps = [(n, i, j) for n in floors for i, j in itertools.combinations(range(slots), 2)]
    rng = random.Random(0)
    trials = []
    for _ in range(30):
        rows, better = {n: rng.sample(row, slots) for n, row in floors.items()}, True
        while better:
            better = False
            for n, i, j in swaps:
                other = {m: list(row) for m, row in rows.items()}
                other[n][i], other[n][j] = other[n][j], other[n][i]
                if cost(other) < cost(rows):
                    rows, better = other, True
        trials.append(rows)
    best = min(trials, key=cost)
    return {room: (2.5 * i, n) for n, row in best.items() for i, room in enumerate(row) if room}


def draw(path: Path) -> None:
    """Draws the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, Patch

    imported, questions = arrows(), rooms()
    at = {room: (x, 1.9 * floor) for room, (x, floor) in place(imported).items()}
    left, right = (edge(x for x, _ in at.values()) for edge in (min, max))
    figure = Figure(figsize=(11, 9.9), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(left - 1.3, right + 1.3)
    axes.set_ylim(-0.9, max(y for _, y in at.values()) + 0.7)
    axes.axis("off")
    for room, other in shown(imported):
        (x, y), (u, v) = at[room], at[other]
        u = x if other == FILES else u
        arrow = {"arrowstyle": "-|>", "color": "#444444", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (u, v + HEIGHT / 2), (x, y - HEIGHT / 2), arrowprops=arrow, zorder=1)
    # Okabe and Ito's blue and orange, pale, which colour-blind readers tell apart; frames differ too.
    pure, disk = ("#D6E9F5", "-"), ("#FBE3B5", "--")
    for room, (x, y) in at.items():
        wide = right - left + WIDTH if room == FILES else WIDTH
        x = (left + right) / 2 if room == FILES else x
        color, line = disk if room == "runs" or "runs" in below(imported, room) else pure
        corner = (x - wide / 2, y - HEIGHT / 2)
        style = {"boxstyle": "round,pad=0,rounding_size=0.12", "edgecolor": "#444444", "zorder": 2}
        box = FancyBboxPatch(corner, wide, HEIGHT, facecolor=color, linestyle=line, **style)
        axes.add_patch(box)
        files = sorted(path.stem for path in SOURCE.glob("_*.py") if path.stem != "__init__")
        text = questions.get(room) or "which every room may import: " + ", ".join(files)
        text = textwrap.fill(text, 200 if room == FILES else 25)
        axes.text(x, y + 0.42, room, ha="center", va="center", fontsize=12.5, weight="bold", zorder=3)
        axes.text(x, y - 0.16, text, ha="center", va="center", fontsize=10, zorder=3)
    legend = [
        Patch(facecolor=pure[0], edgecolor="#444444", label="without a run folder"),
        Patch(
            facecolor=disk[0],
            edgecolor="#444444",
            linestyle="--",
            label="imports runs, or a room that does",
        ),
    ]
    axes.legend(handles=legend, loc="upper left", fontsize=9, frameon=False)
    figure.savefig(path, metadata={"Software": "foretrace", "Description": describe()})


if __name__ == "__main__":
    draw(PICTURE)
