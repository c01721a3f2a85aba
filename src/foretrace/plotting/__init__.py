"""How does it look? Pictures of runs, comparisons, forecasts and experiments, in one palette."""

from foretrace.plotting._charts import Chart, Line, draw_charts
from foretrace.plotting._forecasts import plot_forecast
from foretrace.plotting._runs import plot_comparison, plot_life, plot_run

__all__ = ["Chart", "Line", "draw_charts", "plot_comparison", "plot_forecast", "plot_life", "plot_run"]
