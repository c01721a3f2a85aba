"""Pages to look at in a browser: one file each, that works without a network.

A `Page` is data: tables, and figures as plotly.js takes them. `write_page` makes it an HTML file that has
everything inside, `content_of` the JSON by which a page that is open renews itself.
"""

from foretrace.plotting._pages._charts_page import charts_page
from foretrace.plotting._pages._fleet_page import fleet_page
from foretrace.plotting._pages._forecast_page import forecast_page
from foretrace.plotting._pages._html import content_of, html_of, write_page
from foretrace.plotting._pages._page import Entry, Figure, Page, Table, View

__all__ = [
    "Entry",
    "Figure",
    "Page",
    "Table",
    "View",
    "charts_page",
    "content_of",
    "fleet_page",
    "forecast_page",
    "html_of",
    "write_page",
]
