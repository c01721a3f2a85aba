"""Text in columns."""

from collections.abc import Container, Sequence


def columns(rows: Sequence[Sequence[str]], *, right: Container[int] = (), rule: bool = False) -> list[str]:
    """Rows as lines with aligned columns, however wide a terminal is.

    Args:
        rows: cells of equal number; the first row may be a heading.
        right: the columns that are aligned to the right.
        rule: draw a rule below the first row.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if rule:
        rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    align = [">" if i in right else "<" for i in range(len(widths))]
    return [
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]
