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
    # A phone has no room for the remark that some charts have beside the name of their x axis.
    name, _, note = chart.x.partition("  (")
    words = {"title": {"text": text(name), "standoff": 4}, "exponentformat": "SI"}
    x = words | _scale([each.x for each in chart.lines], is_log=bool({"x", "x2"} & set(chart.log)))
    y = {"hoverformat": ".5~g", "exponentformat": "power"} | _heights(chart)
    # Points are apart from each other; of lines, all are read at one step.
    look = layout(x, y, **({"hovermode": "closest"} if chart.points else {}))
    note = f"{note.rstrip(')').capitalize()}." if note else ""
    return Figure(chart.title, note, traces, look, 340 if chart.points else 300, follows=not chart.points)


def _scale(values: Sequence[Any], *, is_log: bool) -> dict[str, Any]:
    """An axis, with ticks at 1, 2 and 5 where powers of ten alone would leave few."""
    if not is_log:
        return {"type": "linear"}
    known = np.concatenate([np.ravel(value) for value in values]).astype(float)
    known = known[np.isfinite(known) & (known > 0) & (known < _LOST)]
    axis: dict[str, Any] = {"type": "log", "dtick": 1}
    if len(known) and known.max() < 100 * known.min():
        powers = range(int(np.floor(np.log10(known.min()))), int(np.ceil(np.log10(known.max()))) + 1)
        ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
        axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}
    return axis


def _heights(chart: Chart) -> dict[str, Any]:
    """The y axis between the bounds that the chart has; where it has one, the lines are the other."""
    is_log = "y" in chart.log
    values = np.concatenate([np.asarray(each.y, float).ravel() for each in chart.lines])
    values = values[np.isfinite(values) & (abs(values) < _LOST) & ((values > 0) | (not is_log))]
    axis = _scale([values], is_log=is_log)
    if not len(values) or chart.floor is chart.ceiling is None:
        return axis
    low = float(values.min()) if chart.floor is None else chart.floor
    high = float(values.max()) if chart.ceiling is None else chart.ceiling
    if is_log:
        return axis | {"range": [float(np.log10(low)), float(np.log10(high)) + 0.4]}
    return axis | {"range": [low, high]}


def _traces(each: Line, chart: Chart, styles: dict[str, Style]) -> list[dict[str, Any]]:
    """The mean of a line over its seeds, and their range as a band."""
    color, dash, marker = (GREY, (0, (5, 3)), "D") if each.theory else styles[each.label]
    y = np.asarray(each.y, float)
    y = np.ma.masked_where(~np.isfinite(y) | (abs(y) > _LOST), y)
    if chart.floor is not None:
        y = np.ma.maximum(y, chart.floor)
    mean = np.ma.filled(y.mean(axis=0), np.nan)
    rows = thinned([mean], np.zeros(len(mean), bool))
    steps = np.asarray(each.x, float)[rows].tolist()
    traces = []
    if len(y) > 1 and not chart.points:
        low, high = (numbers(np.ma.filled(end, np.nan)[rows]) for end in (y.min(axis=0), y.max(axis=0)))
        traces = band(each.label, steps, low, high, color)
        traces[1]["showlegend"] = False
    values = numbers([float(f"{value:.6g}") for value in mean[rows]])
    width = "solid" if isinstance(dash, str) else ",".join(f"{1.6 * part:g}px" for part in dash[1])
    marks = {"marker": {"symbol": _SYMBOLS[marker], "size": 6, "color": color}, "cliponaxis": False}
    if chart.points or len(steps) == 1:
        place = f"%{{x:.4~g}} {text(chart.x)}, %{{y:.3~g}}"
        marks["marker"]["size"] = 10
        marks |= {"mode": "markers", "hovertemplate": f"{text(each.label)}<br>{place}<extra></extra>"}
    elif len(steps) < _FEW and not each.theory:
        marks |= {"mode": "lines+markers"}
    else:
        marks = {}
    return [*traces, line(each.label, steps, values, color, dash=width, legendgroup=each.label, **marks)]
