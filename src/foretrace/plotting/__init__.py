"""Pictures of runs, comparisons and forecasts."""

from foretrace.plotting._charts import plot_comparison, plot_forecast, plot_run

__all__ = ["plot_comparison", "plot_forecast", "plot_run"]
