"""Which values of a stream surprised the model, and the list of them."""

import numpy as np

from foretrace.forecast import Predictions
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._page import Entry, Table

_LISTED = 200


def are_anomalies(rows: Predictions) -> np.ndarray:
    """Which values are anomalies, (n,): outside their interval, with an error that is rare."""
    _, lower, upper = rows.of[1]
    outside = (rows.actual < lower) | (rows.actual > upper)
    return outside & (rows.anomaly >= _rare(rows))


def _rare(rows: Predictions) -> float:
    # A score is a share of at most 1,000 errors before: among few rows none is that high.
    return 0.999 if len(rows.times) > 2000 else 0.99


def anomaly_table(rows: Predictions, anomalies: np.ndarray, axis: Axis) -> Table:
    """The anomalies, newest first."""
    forecast, lower, upper = rows.of[1]
    places = np.flatnonzero(anomalies)[::-1]
    note = (
        f"Values outside their interval whose error one row ahead was larger than {_rare(rows):.1%} of the "
        "errors before it, of which 1,000 count"
    )
    listed = places[:_LISTED]
    if not len(places):
        note += ": none."
    elif len(listed) < len(places):
        note += f": {len(places):,}, of which the newest {_LISTED} are listed."
    else:
        note += f": {len(places):,}. A click on a row shows it in the figure above."
    cells = [
        [
            Entry(rows.times[i], float(rows.when[i])),
            *(Entry(f"{float(value[i]):.12g}", float(value[i])) for value in (rows.actual, forecast)),
            Entry(f"{lower[i]:.12g} to {upper[i]:.12g}", float(lower[i])),
            Entry(f"{rows.actual[i] - forecast[i]:+.4g}", float(abs(rows.actual[i] - forecast[i]))),
        ]
        for i in listed
    ]
    heading = ("time", "observed", "forecast", "interval", "error") if len(listed) else ()
    return Table("Anomalies", note, heading, cells, axis.of(rows.when[listed]))
