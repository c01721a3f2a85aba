"""The look that all figures share: that of the pictures, in the words of plotly.js."""

import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from foretrace.plotting._style import GREY

_GRID = "#DDDDDD"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def layout(x: dict[str, Any], y: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A layout with these axes.

    Args:
        x: further words for the axis of time or steps.
        y: further words for the axis of values.
        others: further words for the layout.
    """
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True, "linecolor": GREY, "ticks": ""}
    return {
        "font": {"family": _FONT, "size": 13, "color": "#222222"},
        "margin": {"l": 8, "r": 20, "t": 8, "b": 8},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": axis | {"showgrid": False, "showline": True} | x,
        "yaxis": axis | y,
    } | others


def line(name: str, x: Any, y: Any, color: str, *, dash: str = "solid", **others: Any) -> dict[str, Any]:
    """A line; its name is plain text."""
    style = {"color": color, "width": 1.6, "dash": dash}
    return {
        "type": "scatter", "mode": "lines", "name": text(name), "x": x, "y": y, "line": style,
    } | others  # fmt: skip


def band(name: str, x: Any, low: Any, high: Any, color: str) -> list[dict[str, Any]]:
    """The area between two lines; two traces, which the legend names once."""
    fill = faint(color)
    edge = {"width": 0, "color": fill}
    upper = line(name, x, high, color, hovertemplate="upper: %{y}<extra></extra>", legendgroup=name)
    lower = line(name, x, low, color, hovertemplate="lower: %{y}<extra></extra>", legendgroup=name)
    filled = {"line": edge, "fill": "tonexty", "fillcolor": fill}
    return [upper | {"line": edge, "showlegend": False}, lower | filled]


def faint(color: str) -> str:
    """A colour of which little is left, for bands."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def text(words: str) -> str:
    """Plain text for plotly.js, which would take tags in it for its own."""
    return html.escape(words, quote=False)


def numbers(values: Iterable[float] | np.ndarray) -> list[float | None]:
    """Numbers as JSON has them: None where one is not finite."""
    return [value if np.isfinite(value) else None for value in np.asarray(values, float).tolist()]
