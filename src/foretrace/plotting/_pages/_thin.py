"""Fewer rows of a long stream, such that a drawing of them looks like one of all."""

import itertools

import numpy as np

MOST = 20_000  # rows that a page has, which a browser draws within a second


def thinned(columns: list[np.ndarray], keep: np.ndarray, most: int = MOST) -> np.ndarray:
    """Chooses rows: all of the newest half, and of those before what a bucket has at its extremes.

    Args:
        columns: whose extremes stay, (n,) each.
        keep: (n,) bool, rows that stay in any case.
        most: about how many rows are chosen; all where there are no more.

    Returns:
        Numbers of the rows that are chosen, rising.
    """
    count = len(keep)
    if count <= most:
        return np.arange(count)
    newest = count - most // 2
    edges = np.linspace(0, newest, max(1, most // 2 // (2 * len(columns))) + 1).astype(int)
    chosen = [np.arange(newest, count), np.flatnonzero(keep), [0]]
    for column in columns:
        low, high = np.nan_to_num(column, nan=np.inf), np.nan_to_num(column, nan=-np.inf)
        buckets = list(itertools.pairwise(edges))
        chosen.append([first + int(low[first:last].argmin()) for first, last in buckets])
        chosen.append([first + int(high[first:last].argmax()) for first, last in buckets])
    return np.unique(np.concatenate(chosen)).astype(int)
