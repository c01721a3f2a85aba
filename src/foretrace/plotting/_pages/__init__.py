"""Pages to look at in a browser: one file each, that works without a network.

A `Page` is data: tables, and figures as plotly.js takes them. `write_page` makes it an HTML file that has
everything inside, `content_of` the JSON by which a page that is open renews itself.
"""
