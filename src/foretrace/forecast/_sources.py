"""Sources of rows: a file in CSV, JSON lines or Parquet, standard input, any iterable of lines."""

import contextlib
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from foretrace._checks import UserError, UserTypeError


@runtime_checkable
class Source(Protocol):
    """Rows of a table, in order. Implement it to forecast from elsewhere.

    Attributes:
        name: what messages call it, such as "a.csv".
        is_live: True if rows arrive one by one: each is learned at once, and a resumed run expects the rows
            after those that it learned. False if all rows can be read at any time: they are learned in
            chunks, and a resumed run reads them from the first one.
    """

    name: str
    is_live: bool

    def columns(self) -> Sequence[str]:
        """Names of the columns, empty if there is no heading; called once, before `rows`."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the place of each row in words, such as "line 3 of a.csv", and its cells by column.

        Args:
            columns: the columns that are read; others may be left out.
        """
        ...

    def close(self) -> None:
        """Releases what the source holds open."""
        ...


class CsvSource:
    """Lines of CSV, the first of them the heading."""

    def __init__(self, lines: Iterable[str], name: str = "the lines", *, is_live: bool = False):
        self.name, self.is_live, self._lines = name, is_live, lines
        self._reader = csv.reader(_checked_text(lines, name))
        self._heading: list[str] = []

    def columns(self) -> Sequence[str]:
        """Reads the heading."""
        with self._errors():
            self._heading = next(self._reader, [])
        return self._heading

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the place and the cells of each row, as text."""
        width = len(self._heading)
        with self._errors():
            for cells in self._reader:
                if not cells:
                    continue
                place = f"line {self._reader.line_num} of {self.name}"
                if len(cells) != width:
                    raise UserError(
                        f"{place} must have {width} cells, like the heading; got {len(cells)}; repair it."
                    )
                yield place, dict(zip(self._heading, cells, strict=True))

    def close(self) -> None:
        """Closes the lines if they are a file."""
        if isinstance(self._lines, io.TextIOBase):
            self._lines.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except csv.Error as error:
            raise UserError(f"{self.name} must be CSV; got {error}; is it another kind of file?") from None


class JsonLinesSource:
    """Lines of JSON, one object each; the first object names the columns."""

    def __init__(self, lines: Iterable[str], name: str = "the lines", *, is_live: bool = False):
        self.name, self.is_live, self._lines = name, is_live, lines
        self._objects = self._parsed()

    def columns(self) -> Sequence[str]:
        """Reads the keys of the first object."""
        first = next(self._objects, None)
        if first is None:
            return []
        self._objects = itertools.chain([first], self._objects)
        return list(first[1])

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the place and the values of each object."""
        yield from self._objects

    def close(self) -> None:
        """Closes the lines if they are a file."""
        if isinstance(self._lines, io.TextIOBase):
            self._lines.close()

    def _parsed(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for number, line in enumerate(_checked_text(self._lines, self.name), start=1):
            if not line.strip():
                continue
            place = f"line {number} of {self.name}"
            try:
                cells = json.loads(line)
            except ValueError:
                cells = None
            if not isinstance(cells, dict):
                raise UserError(f"{place} must be one JSON object; got {line.strip()[:40]!r}; repair it.")
            yield place, cells


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
        return self._table.schema_arrow.names

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the place and the values of each row."""
        count = itertools.count(1)
        for batch in self._table.iter_batches(columns=list(columns)):
            for cells in batch.to_pylist():
                yield f"row {next(count)} of {self.name}", cells

    def close(self) -> None:
        """Closes the file."""
        self._table.close()


def open_source(source: str | os.PathLike | Source | Iterable[str]) -> Source:
    """A source from a path (Parquet or JSON lines by its extension, else CSV) or from lines of CSV.

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
        kind = JsonLinesSource if path.suffix in (".jsonl", ".ndjson", ".json") else CsvSource
        return kind(path.open(encoding="utf-8-sig", newline=""), path.name)
    if isinstance(source, Source):
        return source
    if not isinstance(source, Iterable):
        raise UserTypeError(f"source must be a path, a Source or lines of text; got {source!r}.")
    return CsvSource(source, is_live=not isinstance(source, list | tuple))


def standard_input() -> Source:
    """Lines of CSV as they arrive on standard input, which stays open."""
    # `readline`, because iterating over a file reads ahead and would hold lines back.
    return CsvSource(iter(sys.stdin.readline, ""), "standard input", is_live=True)


def _checked_text(lines: Iterable[str], name: str) -> Generator[str, None, None]:
    try:
        for line in lines:
            if "\0" in line:
                raise UserError(f"{name} must be text; got a zero byte; is it another kind of file?")
            yield line
    except UnicodeDecodeError:
        raise UserError(
            f"{name} must be text in UTF-8; got other bytes; is it another kind of file?"
        ) from None
