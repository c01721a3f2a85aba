"""The charts of a picture as a page: the same lines, bands and colours, with zoom and numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foretrace.plotting._charts import Chart, Line
from foretrace.plotting._pages._layout import band, layout, line, numbers, text
from foretrace.plotting._pages._page import Figure, Page, Table
from foretrace.plotting._pages._thin import thinned
from foretrace.plotting._style import GREY, Style, styles_of

_FEW = 9  # points; so many are marked
_LOST = 1e29  # what is drawn of a run that went to infinity
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond"}


def charts_page(
    charts: Sequence[Chart], title: str, lead: Sequence[str] = (), tables: Sequence[Table] = ()
) -> Page:
    """A page with a figure for every chart; a label looks the same in all of them.

    Args:
        charts: at least one.
        title: of the page.
        lead: paragraphs below the title.
        tables: what stands before the figures.
    """
    styles = styles_of(line.label for chart in charts for line in chart.lines if not line.theory)
    x = [chart.x for chart in charts if chart.x]
    figures = [_figure(chart._replace(x=chart.x or (x or [""])[-1]), styles) for chart in charts]
    return Page(title=title, lead=lead, above=tables, below=figures)


def _figure(chart: Chart, styles: dict[str, Style]) -> Figure:
    traces = [trace for each in chart.lines for trace in _traces(each, chart, styles)]
    # Where nothing bounds the axis, the lines do.
    values = [np.asarray(each.y, float).ravel() for each in chart.lines]
    known = np.concatenate([value[np.isfinite(value) & (abs(value) < _LOST)] for value in values])
    is_log = "y" in chart.log
    known = known[known > 0] if is_log else known
    y: dict[str, Any] = {"type": "log" if is_log else "linear", "hoverformat": ".5~g"}
    y |= {"exponentformat": "power"} if is_log else {}
    if len(known) and (chart.floor is not None or chart.ceiling is not None):
        low = float(known.min()) if chart.floor is None else chart.floor
        high = float(known.max()) if chart.ceiling is None else chart.ceiling
        y["range"] = [float(np.log10(low)), float(np.log10(1.2 * high))] if is_log else [low, high]
    x: dict[str, Any] = {
        "type": "log" if {"x", "x2"} & set(chart.log) else "linear",
        "title": {"text": text(chart.x), "standoff": 4},
        "exponentformat": "SI",
    }
    # A point has a place of its own, and no other has the same.
    hover = {"hovermode": "closest"} if chart.points else {}
    return Figure(
        chart.title,
        "",
        traces,
        layout(x, y, **hover),
        340 if chart.points else 300,
        follows=not chart.points,
    )


def _traces(each: Line, chart: Chart, styles: dict[str, Style]) -> list[dict[str, Any]]:
    """The mean of a line over its seeds, and their range as a band."""
    color, dash, marker = (GREY, (0, (5, 3)), "D") if each.theory else styles[each.label]
    x, y = np.asarray(each.x, float), np.asarray(each.y, float)
    y = np.ma.masked_where(~np.isfinite(y) | (abs(y) > _LOST), y)
    if chart.floor is not None:
        y = np.ma.maximum(y, chart.floor)
    mean = np.ma.filled(y.mean(axis=0), np.nan)
    rows = thinned([mean], np.zeros(len(x), bool))
    steps = [float(value) for value in x[rows]]
    words: dict[str, Any] = {"mode": "lines"}
    if chart.points or len(x) == 1:
        words = {"mode": "markers", "marker": {"symbol": _SYMBOLS[marker], "size": 10, "color": color}}
        words["hovertemplate"] = (
            f"{text(each.label)}<br>%{{x:.4~g}} {text(chart.x)}, %{{y:.3~g}}<extra></extra>"
        )
    elif len(x) < _FEW:
        words = {"mode": "lines+markers", "marker": {"symbol": _SYMBOLS[marker], "size": 6, "color": color}}
    traces = []
    if len(y) > 1 and not chart.points:
        low, high = (numbers(np.ma.filled(end, np.nan)[rows]) for end in (y.min(axis=0), y.max(axis=0)))
        traces = band(each.label, steps, low, high, color)
        traces[1]["showlegend"] = False
    width = "solid" if isinstance(dash, str) else ",".join(f"{1.6 * part:g}px" for part in dash[1])
    values = numbers([float(f"{value:.6g}") for value in mean[rows]])
    return [*traces, line(each.label, steps, values, color, dash=width, legendgroup=each.label, **words)]
