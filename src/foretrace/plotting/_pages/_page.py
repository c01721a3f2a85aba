"""A page as data: what it says, its tables and its figures."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """An entry of a table: its text, and the number by which its column is sorted."""

    text: str
    order: float


class Table(NamedTuple):
    """A table, sorted by a click on its heading.

    Attributes:
        title: above it.
        note: how to read it.
        heading: names of the columns.
        rows: entries, as many as the heading has.
        places: for each row a place on the time axis, which a click on the row shows in the figures; empty
            where rows have none.
        opens: for each row what a click on it puts in the place of a star in the names of columns, in the
            figure of one row; None where a row has nothing to show, empty where no row has.
    """

    title: str
    note: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str | Entry]]
    places: Sequence[float] = ()
    opens: Sequence[str | None] = ()


class Figure(NamedTuple):
    """A figure.

    Attributes:
        title: above it.
        note: how to read it.
        traces: as plotly.js takes them; a name in the place of an array is one of `Page.columns`.
        layout: as plotly.js takes it.
        height: in pixels.
        newest: for every number of newest rows that a button shows, its name and the range of time; empty
            for a figure without buttons.
        follows: whether it shows the same time as the other figures that follow.
        fits: whether its heights follow from what is seen of the traces that are marked by `meta`.
        opened: of a figure of one row of a table, which one it shows at first, see `Table.opens`.
    """

    title: str
    note: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 260
    newest: Sequence[tuple[str, float, float]] = ()
    follows: bool = False
    fits: bool = False
    opened: str | None = None


class View(NamedTuple):
    """One of several faces of a page, of which a reader sees one at a time: a horizon, or a series.

    Attributes:
        label: on the button that shows it.
        parts: from top to bottom.
    """

    label: str
    parts: Sequence[Table | Figure]


class Page(NamedTuple):
    """A page.

    Attributes:
        title: plain text, as all text here: it is escaped where HTML is made of it.
        lead: paragraphs below the title.
        above: what stands before the views.
        views: the first one is shown at first.
        below: what stands after them.
        columns: arrays that figures name, None where a number is unknown.
    """

    title: str
    lead: Sequence[str] = ()
    above: Sequence[Table | Figure] = ()
    views: Sequence[View] = ()
    below: Sequence[Table | Figure] = ()
    columns: Mapping[str, list[Any]] = MappingProxyType({})
