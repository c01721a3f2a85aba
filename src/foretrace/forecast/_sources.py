"""Sources of rows: a file in CSV, JSON or Parquet, standard input, any iterable of lines."""

import contextlib
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foretrace._checks import UserError, UserTypeError
from foretrace.forecast._text import Lines, delimiter_of, is_json, open_text, standard_lines


@runtime_checkable
class Source(Protocol):
    """Rows of a table, in order. Implement it to forecast from elsewhere.

    Attributes:
        name: what messages call it, such as "a.csv".
        is_live: True if rows arrive one by one: each is learned at once, and a resumed run skips rows that
            it learned by their time, if they have one, else expects the rows after these. False if all rows
            can be read at any time: they are learned in chunks, and a resumed run reads them from the first
            one.
    """

    name: str
    is_live: bool

    def columns(self) -> Sequence[str]:
        """Names of the columns, empty if there is no heading; called once, before `rows`."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
        """Yields the place of each row in words, such as "line 3 of a.csv", and its cells by column.

        In the place of a row that cannot be read it yields a `UserError` that says why.

        Args:
            columns: the columns that are read; others may be left out.
        """
        ...

    def close(self) -> None:
        """Releases what the source holds open."""
        ...


class CsvSource:
    """Lines of CSV, the first of them the heading; semicolons, tabs or bars may lie between the cells.

    A line that has all the names that are read is a heading again, as where a log begins anew.

    Attributes:
        name: what messages call it.
        is_live: whether rows arrive one by one.
        delimiter: what lies between the cells.
        lines: the text.
    """

    def __init__(self, lines: Iterable[str], name: str = "the lines", *, is_live: bool = False):
        self.name, self.is_live, self._text, self.delimiter = name, is_live, lines, ","
        self.lines = Lines(lines, name)
        self._heading: list[str] = []
        self._first = ""

    def columns(self) -> Sequence[str]:
        """Reads the heading."""
        self._first = self.lines.first()
        second = "" if self.is_live else next(self.lines, "")
        with self._errors():
            self.delimiter = delimiter_of(self._first, second)
        if second:
            self.lines.give_back(second)
        if self._first.startswith("sep="):
            self._first = self.lines.first()
        self.lines.give_back(self._first)
        with self._errors():
            self._heading = _stripped(next(self._cells(), []))
        return self._heading

    def begin_without_heading(self, names: Sequence[str]) -> None:
        """Takes the first line for a row, of columns of these names."""
        self.lines.give_back(self._first)
        self._heading = list(names)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
        """Yields the place and the cells of each row, as text."""
        wanted, names = set(columns), self._heading
        with self._errors():
            for cells in self._cells():
                cells = _stripped(cells)
                while len(cells) > len(names) and not cells[-1]:
                    cells.pop()
                if wanted and not wanted.isdisjoint(cells) and wanted <= set(cells):
                    names = cells
                    continue
                if not cells:
                    continue
                place, width = f"line {self.lines.number} of {self.name}", len(names)
                if len(cells) == width:
                    yield place, dict(zip(names, cells, strict=True))
                    continue
                yield (
                    place,
                    UserError(
                        f"{place} must have {width} cells, like the heading; got {len(cells)}; repair it."
                    ),
                )

    def close(self) -> None:
        """Closes the lines if they are a file."""
        if isinstance(self._text, io.TextIOBase):
            self._text.close()

    def _cells(self) -> Iterator[list[str]]:
        if not self.is_live:
            yield from csv.reader(self.lines, delimiter=self.delimiter, skipinitialspace=True)
            return
        # Line by line: a stray quotation mark must not swallow all lines after it.
        for line in self.lines:
            try:
                yield from csv.reader([line], delimiter=self.delimiter, skipinitialspace=True, strict=True)
            except csv.Error:
                yield [line]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except csv.Error as error:
            raise UserError(f"{self.name} must be CSV; got {error}; is it another kind of file?") from None


class JsonLinesSource:
    """Lines of JSON, one object each, or one array of objects; the first object names the columns."""

    def __init__(self, lines: Iterable[str], name: str = "the lines", *, is_live: bool = False):
        self.name, self.is_live, self._text = name, is_live, lines
        self.lines = Lines(lines, name)
        self._objects = self._parsed()

    def columns(self) -> Sequence[str]:
        """Reads the keys of the first object."""
        first = next(self._objects, None)
        if first is None:
            return []
        if isinstance(first[1], UserError):
            raise first[1]
        self._objects = itertools.chain([first], self._objects)
        return list(first[1])

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
        """Yields the place and the values of each object."""
        yield from self._objects

    def close(self) -> None:
        """Closes the lines if they are a file."""
        if isinstance(self._text, io.TextIOBase):
            self._text.close()

    def _parsed(self) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
        first = self.lines.first()
        self.lines.give_back(first)
        if first.lstrip().startswith("["):
            yield from self._items()
            return
        for line in self.lines:
            if line.strip():
                yield self._object(f"line {self.lines.number} of {self.name}", line)
        # The last line may lack its end: an object that is whole has come to an end.
        if self.lines.rest:
            _, cells = self._object("", self.lines.rest)
            if not isinstance(cells, UserError):
                self.lines.rest = ""
                yield f"the last line of {self.name}", cells

    def _object(self, place: str, line: str) -> tuple[str, Mapping[str, Any] | UserError]:
        try:
            cells = json.loads(line)
        except ValueError:
            cells = None
        if isinstance(cells, dict):
            return place, _stripped_keys(cells)
        reason = f"{place} must be one JSON object; got {line.strip()[:40]!r}; repair it."
        return place, UserError(reason)

    def _items(self) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
        """The objects of an array."""
        text = "".join([*self.lines, self.lines.rest])
        self.lines.rest = ""
        try:
            items = json.loads(text)
        except ValueError as error:
            raise UserError(
                f"{self.name} must be JSON, an array of objects or one object a line; got {error}; "
                "write it anew."
            ) from None
        for number, cells in enumerate(items, start=1):
            place = f"item {number} of {self.name}"
            if isinstance(cells, dict):
                yield place, _stripped_keys(cells)
                continue
            reason = f"{place} must be a JSON object, with names; got {str(cells)[:40]!r}; write it so."
            yield place, UserError(reason)


class ParquetSource:
    """The rows of a Parquet file (extra `foretrace[parquet]`)."""

    is_live = False

    def __init__(self, path: Path):
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            raise UserError(
                "data in Parquet needs the package pyarrow, which is not installed; got "
                f"{path.name!r}; pip install 'foretrace[parquet]'."
            ) from None
        self.name = path.name
        try:
            self._table = parquet.ParquetFile(path)
        except ArrowException as error:
            raise UserError(f"{path.name} must be Parquet; got {str(error).splitlines()[0]}.") from None

    def columns(self) -> Sequence[str]:
        """Reads the schema."""
        self._names = {name.strip(): name for name in self._table.schema_arrow.names}
        return list(self._names)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the place and the values of each row."""
        count = itertools.count(1)
        for batch in self._table.iter_batches(columns=[self._names[name] for name in columns]):
            for cells in batch.to_pylist():
                yield f"row {next(count)} of {self.name}", _stripped_keys(cells)

    def close(self) -> None:
        """Closes the file."""
        self._table.close()


def open_source(source: str | os.PathLike | Source | Iterable[str]) -> Source:
    """A source from a path (Parquet by its extension, JSON or CSV by its first line) or from lines of CSV.

    A list or tuple of lines is read at once; lines of any other iterable are taken to arrive one by one.

    Raises:
        UserError: if there is no such file, or it is not of the kind that its extension says.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.is_file():
            raise UserError(
                f"data must be a file or - for standard input; got {str(path)!r}; check its name."
            )
        if path.suffix in (".parquet", ".pq"):
            return ParquetSource(path)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_text(path))
            kind = _kind_of(Lines(file, path.name).first())
            file.seek(0)
            stack.pop_all()
        return kind(file, path.name)
    if isinstance(source, Source):
        return source
    if not isinstance(source, Iterable):
        raise UserTypeError(f"source must be a path, a Source or lines of text; got {source!r}.")
    return CsvSource(source, is_live=not isinstance(source, list | tuple))


def standard_input() -> Source:
    """Lines of CSV or JSON as they arrive on standard input, which stays open."""
    name, lines = "standard input", standard_lines(sys.stdin)
    first = next((line for line in lines if line.strip()), "")
    return _kind_of(first)(itertools.chain([first] if first else [], lines), name, is_live=True)


def _kind_of(first_line: str) -> type[CsvSource] | type[JsonLinesSource]:
    return JsonLinesSource if is_json(first_line) else CsvSource


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _stripped_keys(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip(): value for name, value in cells.items()}
