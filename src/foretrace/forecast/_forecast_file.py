"""Forecasts of a table, row by row: what `foretrace forecast` calls."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from foretrace._checks import UserError
from foretrace.forecast._columns import Columns
from foretrace.forecast._fleet import FleetForecasts
from foretrace.forecast._forecasts import Forecasts
from foretrace.forecast._rows import RowReader
from foretrace.forecast._settings import Settings
from foretrace.forecast._sources import Source, open_source
from foretrace.runs._config import read_config
from foretrace.runs._folder import SaveInterval, open_run
from foretrace.runs._signals import StopSignal


def forecast_file(
    source: str | os.PathLike | Source | Iterable[str],
    *,
    target: str | None = None,
    time: str | None = None,
    series: str | None = None,
    features: Sequence[str] | str | None = None,
    horizon: int = 1,
    period: int | Literal["auto"] = "auto",
    calendar: Literal["on", "off"] = "on",
    gaps: Literal["stop", "fill", "ignore"] = "stop",
    on_bad: Literal["stop", "skip"] = "stop",
    coverage: float = 0.9,
    cell: str = "elstm",
    hidden: int = 32,
    learning_rate: float = 0.003,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    from_checkpoint: str | os.PathLike | None = None,
    checkpoint_every: str = "1m",
    share: tuple[int, int] | None = None,
    gather: Sequence[str | os.PathLike] = (),
    stop: StopSignal | None = None,
    config: Mapping[str, Any] | None = None,
) -> Forecasts:
    r"""Forecasts a column of a table after each of its rows, and learns each row.

    Args:
        source: a CSV, JSON or Parquet (.parquet) file, lines of CSV, or any `Source`.
        target: the column to forecast; may be left out with `from_checkpoint`.
        time: column with dates or numbers at equal steps; without it rows are counted.
        series: column with the name of the series that a row belongs to: each has a model of its own.
        features: columns that help, as names or in a line with commas between them.
        horizon: rows ahead, H.
        period: rows in a season, 0 for none. With "auto" up to two seasons are found, such as a day and a
            week: those of the dates, else distances over which the values change little.
        calendar: "on" to learn from the time of day, the day of the week and the day of the year, where
            `time` is a column of dates and `period` is not 0; "off" to leave them out.
        gaps: "stop" at a gap or a repeated time, "fill" gaps and drop repetitions, or "ignore" both.
        on_bad: "stop" at a row that cannot be read, or "skip" it; of a row whose time can be read, only the
            cells that cannot, which are unknown.
        coverage: share of the values that the intervals shall hold.
        cell: kind of the recurrent network, one of `foretrace.stream.CELLS`.
        hidden: number of its units.
        learning_rate: of Adam.
        seed: of the initial weights.
        out: run folder for predictions.csv, config.json and checkpoints; None writes nothing.
        resume: go on with the run in `out`, after the rows that it learned.
        from_checkpoint: run folder whose model, with its settings, forecasts here without learning.
        checkpoint_every: rows, as "100000", or minutes, as "1m", between checkpoints.
        share: (i, n) for the i-th of n parts of the series, from 0, of which each may run in a process or
            on a machine of its own, with an `out` of its own; the source is then a file.
        gather: run folders of all n parts, each at the end of the source: their models go on in `out`,
            where nothing was saved yet, as those of one process.
        stop: ends the iteration, with everything saved, once its `signal` is set.
        config: further entries of config.json.

    Returns:
        An iterator over one `RowForecast` a row; rows are read and learned as it advances. With `series`
        it is a `FleetForecasts`.

    Raises:
        UserError: for arguments, a heading or a run folder that cannot be used. While iterating, for a row
            that cannot be used, once the rows before it are learned and saved.
        RunError: if another process uses `out`, or `out` cannot be written any more.

    Example:
        >>> from foretrace.forecast import forecast_file
        >>> lines = ["load\n", *(f"{i % 4}\n" for i in range(200))]
        >>> forecasts = forecast_file(lines, target="load", horizon=2, hidden=4)
        >>> rows = list(forecasts)
        >>> len(rows), rows[-1].time, rows[-1].forecast.shape
        (200, '200', (2,))
        >>> [(ahead.time, ahead.horizon) for ahead in forecasts.ahead()]
        [('201', 1), ('202', 2)]
        >>> persistence = forecasts.scores()[0].rules["persistence"]
        >>> persistence.ours < 0.3 < persistence.error
        True
    """
    settings = Settings(
        target=target,
        series=series,
        time=time,
        features=features if features is None or isinstance(features, str) else tuple(features),
        horizon=horizon,
        period=period,
        calendar=calendar,
        gaps=gaps,
        on_bad=on_bad,
        cell=cell,
        hidden=hidden,
        learning_rate=learning_rate,
        coverage=coverage,
        seed=seed,
        from_checkpoint=None if from_checkpoint is None else Path(from_checkpoint),
        share=share,
    ).resolved()
    settings.check()
    interval = SaveInterval.parse(checkpoint_every)
    if resume and out is None:
        raise UserError("out must be the folder of the run to resume; got None; give it.")
    old = (read_config(Path(out)) if resume and out is not None else None) or {}
    with contextlib.ExitStack() as stack:
        opened = open_source(source)
        stack.callback(opened.close)
        if share is not None and opened.is_live:
            raise UserError(
                f"share must be left out for rows that arrive one by one; got {share}; drop it."
            )
        columns = Columns(str(settings.target), settings.time, settings.features or (), settings.series)
        reader = RowReader(opened, columns, on_bad=on_bad, heading=old.get("heading", ()))
        settings = dataclasses.replace(settings, features=reader.columns.features)
        folder = None
        if out is not None:
            written = {
                "kind": "forecast",
                **dataclasses.asdict(settings),
                "features": list(reader.columns.features),
                "share": None if share is None else list(share),
                # Lines that are sent to a resumed run may lack it.
                "heading": list(reader.heading) if opened.is_live else None,
                "from_checkpoint": None if from_checkpoint is None else str(from_checkpoint),
                "checkpoint_every": checkpoint_every,
                "source": str(Path(source).absolute()) if isinstance(source, str | os.PathLike) else None,
                **(config or {}),
            }
            written = {name: value for name, value in written.items() if value is not None}
            folder = stack.enter_context(
                open_run(Path(out), written, interval, resume=resume, lines="predictions.csv")
            )
        if settings.series is None:
            return Forecasts(settings, opened, reader, folder, stop, stack)
        fleet = FleetForecasts(settings, opened, reader, folder, stop, stack)
        if gather and not fleet.learned:
            fleet.take_over([Path(part) for part in gather])
        return fleet
