"""How does it look? Pictures and pages of runs, comparisons, forecasts and experiments, in one palette."""

from foretrace.plotting._charts import Chart, Line, draw_charts
from foretrace.plotting._forecasts import plot_forecast
from foretrace.plotting._pages import (
    Entry,
    Figure,
    Page,
    Table,
    View,
    charts_page,
    content_of,
    fleet_page,
    forecast_page,
    html_of,
    write_page,
)
from foretrace.plotting._runs import comparison_chart, plot_comparison, plot_life, plot_run, run_charts

__all__ = [
    "Chart",
    "Entry",
    "Figure",
    "Line",
    "Page",
    "Table",
    "View",
    "charts_page",
    "comparison_chart",
    "content_of",
    "draw_charts",
    "fleet_page",
    "forecast_page",
    "html_of",
    "plot_comparison",
    "plot_forecast",
    "plot_life",
    "plot_run",
    "run_charts",
    "write_page",
]
