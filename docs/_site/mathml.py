"""Mathematics as MathML, made when the site is built: browsers draw it with no script and no network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Names the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_drawn(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    text = node.astext()
    numbers = re.findall(r"\\tag\{(\d)\}", text)
    drawn = _drawn(re.sub(r"\\tag\{\d\}", "", text), "block")
    number = "".join(f'<span class="number">({each})</span>' for each in numbers)
    # A box of its own scrolls where a formula is wider than a phone.
    writer.body.append(f'<div class="math-block">{drawn}{number}</div>\n')
    raise nodes.SkipNode


def _drawn(text: str, display: str) -> str:
    """Primes have a class of their own: without a font for mathematics they are too small to be seen."""
    return convert(text, display=display).replace("<mi>&#x02032;", '<mi class="prime">&#x02032;')
