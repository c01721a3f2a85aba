"""The pages that the code writes, before Sphinx reads any; and what must hold after it has written them."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from . import api, learner_pages, refusals

DOCS = Path(__file__).parents[1]


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes learners/, api/ and refusals/, and checks the reference at the end."""
    app.connect("config-inited", lambda app, config: write_pages())
    app.connect("build-finished", _check_reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages() -> None:
    """Writes the pages of learners, of the API and of refusals where they differ from what is there."""
    written: set[Path] = set()

    def write_page(path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        written.add(path)

    learner_pages.same_numbers()
    learner_pages.write(DOCS / "learners", write_page)
    api.write(DOCS / "api", write_page)
    refusals.write(DOCS / "refusals", write_page)
    for folder in ("learners", "api", "refusals"):
        for path in (DOCS / folder).glob("*.md"):
            if path not in written:
                path.unlink()


def _check_reference(app: Sphinx, exception: Exception | None) -> None:
    """Raises unless the reference has all that is public, and nothing else."""
    if exception is not None or app.builder.name != "html":
        return
    objects = {name for name, *_, kind_place in app.env.domains["py"].get_objects() if kind_place >= 0}
    kinds = {entry[0]: entry[2] for entry in app.env.domains["py"].get_objects()}
    shown = {name for name in objects if kinds[name] in ("class", "function", "data")}
    public = api.public_names()
    if shown != public:
        raise ExtensionError(
            f"The API reference must have all that is public and nothing else; it lacks "
            f"{sorted(public - shown)} and has {sorted(shown - public)} beside."
        )
