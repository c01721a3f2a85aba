"""What is forecast and by which model, checked before anything is read."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from foretrace import stream
from foretrace._checks import UserError
from foretrace.runs._config import read_config

_LAGS = 24


@dataclasses.dataclass(frozen=True)
class Settings:
    """Arguments of `forecast_file` that say what is forecast, and by which model."""

    target: str | None
    series: str | None
    time: str | None
    features: tuple[str, ...] | str | None
    horizon: int
    period: int | Literal["auto"]
    calendar: Literal["on", "off"]
    gaps: Literal["stop", "fill", "ignore"]
    on_bad: Literal["stop", "skip"]
    cell: str
    hidden: int
    learning_rate: float
    coverage: float
    seed: int
    from_checkpoint: Path | None
    share: tuple[int, int] | None = None

    def resolved(self) -> "Settings":
        """The same, with the model of `from_checkpoint` and the columns that it was fitted to."""
        if self.from_checkpoint is None:
            return self
        if self.series is not None:
            raise UserError(
                "from_checkpoint must be left out with series; got both; go on with a fleet by --resume."
            )
        config = read_config(self.from_checkpoint)
        if not config or config.get("kind") != "forecast":
            raise UserError(
                "from_checkpoint must be a run folder of a forecast; got "
                f"{str(self.from_checkpoint)!r}; see foretrace forecast --help."
            )
        model = ("horizon", "cell", "hidden", "learning_rate", "period", "calendar", "coverage", "seed")
        values = {name: config.get(name) for name in model}
        for name in ("target", "time", "features"):
            value = getattr(self, name)
            values[name] = config.get(name) if value is None else value
        values["features"] = tuple(values["features"] or ())
        return dataclasses.replace(self, **values)

    def check(self) -> None:
        """Raises UserError for values that make no sense."""
        if self.target is None:
            raise UserError("target must be a column of the data; got none; give --target NAME.")
        if self.share is not None and not (self.series and 0 <= self.share[0] < self.share[1]):
            raise UserError(
                f"share must be (i, n) with 0 <= i < n, and series a column; got {self.share}; leave it "
                "out for all series."
            )
        limits = {
            "horizon": (1, 1000),
            "hidden": (1, 4096),
            "seed": (0, 2**32 - 1),
        }
        if self.period != "auto":
            limits["period"] = (0, 100_000)
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"{name} must be an int from {least} to {most}; got {value}; see --help.")
        for name, words in (
            ("gaps", ("stop", "fill", "ignore")),
            ("on_bad", ("stop", "skip")),
            ("calendar", ("on", "off")),
        ):
            if getattr(self, name) not in words:
                raise UserError(
                    f"{name} must be {', '.join([*words[:-2], ' or '.join(words[-2:])])}; got "
                    f"{getattr(self, name)!r}; choose one."
                )
        for name in ("learning_rate", "coverage"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value < 1):
                raise UserError(f"{name} must be above 0 and below 1; got {value}; leave it out.")

    def model(self) -> stream.Config:
        """The configuration of the model."""
        return stream.Config(
            cell=self.cell,
            hidden=self.hidden,
            features=len(self.features or ()),
            horizon=self.horizon,
            lags=_LAGS,
            target="auto",
            period=stream.FOUND if self.period == "auto" else self.period,
            learning_rate=self.learning_rate,
            coverage=self.coverage,
            learning=self.from_checkpoint is None,
            has_calendar=self.calendar == "on" and self.time is not None and self.period != 0,
        )
