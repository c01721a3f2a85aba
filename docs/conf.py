"""Sphinx's settings. `make docs` builds the site in build/site, without a network."""

import hashlib
import os
import sys
from pathlib import Path

import foretrace

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

project = "foretrace"
author = "The foretrace authors"
copyright = author  # the name that Sphinx reads
version = release = foretrace.__version__

extensions = ["myst_nb", "_site.mathml", "_site.build"]
exclude_patterns = ["_site"]
suppress_warnings = ["mystnb.unknown_mime_type"]
html_math_renderer = "mathml"
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
nitpicky = False

# Tutorials are executed anew whenever a line of the library or of theirs has changed.
_sources = sorted((ROOT / "src").rglob("*.py"))
_digest = hashlib.sha256(b"".join(path.read_bytes() for path in _sources)).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks" / _digest)
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

smartquotes = False  # an option is --gaps, with two hyphens
html_theme = "furo"
html_title = f"foretrace {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # which a browser refuses to a page that was opened from a file
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
