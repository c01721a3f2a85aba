"""A page as HTML, all in one file: text that needs no script, and figures as data for plotly.js."""

import base64
import functools
import gzip
import html
import importlib.resources
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs, get_plotlyjs_version

from foretrace.plotting._pages._page import Entry, Figure, Page, Table
from foretrace.runs.checkpoint import replace_file

_SHELL = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body{watched}>
<main>{body}</main>
<p id="state" role="status"></p>
<footer>Drawn by foretrace with plotly.js {version} (MIT licence), which is inside this file.</footer>
<script type="text/plain" id="library">{library}</script>
<script type="text/plain" id="figures">{figures}</script>
<script>
{script}</script>
</body>
</html>
"""
# Name, sign, and how many times its width and how much wider the range of time becomes.
_STEPS = "".join(
    f'<button type="button" aria-label="{name}" title="{name}" data-move="{move}" data-widen="{widen}">'
    f"{sign}</button>"
    for name, sign, move, widen in (
        ("earlier", "&#9664;", -0.8, 1), ("later", "&#9654;", 0.8, 1),
        ("closer", "+", 0, 0.5), ("wider", "&minus;", 0, 2),
    )
)  # fmt: skip


def write_page(page: Page, path: Path) -> None:
    """Writes a page as one file that needs no other; at any instant the old one or the new one is there.

    Args:
        page: the page.
        path: HTML file to write.
    """
    replace_file(path, html_of(page).encode())


def html_of(page: Page, *, watched: bool = False) -> str:
    """The HTML of a page, the script that draws and its data included.

    Args:
        page: the page.
        watched: whether a server stands behind it, which it asks for news.
    """
    content = content_of(page)
    return _SHELL.format(
        title=html.escape(page.title),
        style=_asset("page.css"),
        watched=" data-watched" if watched else "",
        body=content["body"],
        version=get_plotlyjs_version(),
        library=_library(),
        figures=_packed(json.dumps(content["figures"], separators=(",", ":"))),
        script=_asset("page.js"),
    )


def content_of(page: Page) -> dict[str, Any]:
    """All that differs from page to page, as JSON: the text as HTML, and the figures by their places."""
    figures: list[Figure] = []
    body = "".join(_body(page, figures))
    drawn = [
        {
            "traces": figure.traces,
            "layout": figure.layout | {"height": figure.height},
            "follows": figure.follows,
            "fits": figure.fits,
            "opened": figure.opened,
        }
        for figure in figures
    ]
    return {"body": body, "figures": {"figures": drawn, "columns": dict(page.columns)}}


def _body(page: Page, figures: list[Figure]) -> Iterator[str]:
    """The HTML of a page's text; the figures that it has are added to the list."""
    yield f"<h1>{html.escape(page.title)}</h1>\n"
    yield from (f"<p>{html.escape(text)}</p>\n" for text in page.lead)
    yield from _parts(page.above, figures)
    if len(page.views) > 1:
        buttons = (
            f'<button type="button" role="tab" data-view="{index}"'
            f' aria-selected="{"false" if index else "true"}">'
            f"{html.escape(view.label)}</button>"
            for index, view in enumerate(page.views)
        )
        yield f'<nav role="tablist">{"".join(buttons)}</nav>\n'
    for index, view in enumerate(page.views):
        yield f'<div class="view" data-view="{index}"{" hidden" if index else ""}>\n'
        yield from _parts(view.parts, figures)
        yield "</div>\n"
    yield from _parts(page.below, figures)


def _parts(parts: Sequence[Table | Figure], figures: list[Figure]) -> Iterator[str]:
    for part in parts:
        yield f"<section>\n<h2>{html.escape(part.title)}</h2>\n"
        yield f'<p class="note">{html.escape(part.note)}</p>\n' if part.note else ""
        if isinstance(part, Table):
            yield from _table(part)
        else:
            yield _figure(part, len(figures))
            figures.append(part)
        yield "</section>\n"


def _figure(figure: Figure, place: int) -> str:
    ranges = "".join(
        f'<button type="button" data-from="{first!r}" data-to="{last!r}">{html.escape(label)}</button>'
        for label, first, last in figure.newest
    )
    buttons = f'<div class="ranges">newest rows: {ranges}{_STEPS}</div>\n' if ranges else ""
    return f'{buttons}<div class="figure" data-figure="{place}" style="height:{figure.height}px"></div>\n'


def _table(table: Table) -> Iterator[str]:
    names = (f"<th><button type='button'>{html.escape(name)}</button></th>" for name in table.heading)
    yield f'<div class="wide"><table>\n<thead><tr>{"".join(names)}</tr></thead>\n<tbody>\n'
    for index, row in enumerate(table.rows):
        place = f' data-place="{table.places[index]!r}" tabindex="0"' if len(table.places) else ""
        opened = table.opens[index] if len(table.opens) else None
        if opened is not None:
            place += f' data-opens="{html.escape(opened)}" tabindex="0"'
        yield f"<tr{place}>{''.join(map(_entry, row))}</tr>\n"
    yield "</tbody></table></div>\n"


def _entry(entry: str | Entry) -> str:
    """A cell, which is broken between words alone, and not at the hyphens of a date."""
    words, order = (entry, "") if isinstance(entry, str) else (entry.text, f' data-order="{entry.order!r}"')
    spans = " ".join(f"<span>{html.escape(word)}</span>" for word in words.split(" "))
    return f"<td{order}>{spans}</td>"


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files("foretrace.plotting._pages") / name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    """Text compressed, as letters: of the library 2 MB are left of 4.8, and its text can end no element."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
