"""Pages that are written elsewhere, in the repository or in the command line; links to what is no page."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
HERE = DOCS / "gathered"

PAGES = {
    ROOT / "RESULTS.md": "results",
    ROOT / "results" / "README.md": "records",
    ROOT / "benchmarks" / "README.md": "benchmarks",
    ROOT / "CONTRIBUTING.md": "contributing",
    ROOT / "tests" / "README.md": "tests",
    ROOT / "CHANGELOG.md": "changelog",
    ROOT / "SECURITY.md": "security",
}
"""What each becomes in `gathered/`."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()#\s]+)(#[^()\s]*)?\)")


def linked(text: str, source: Path, page: Path) -> str:
    """A text whose links lead to pages of the site; of what is none the words alone are left.

    Args:
        text: in Markdown.
        source: the file that its links start from.
        page: the file of the page that it is shown on.
    """

    def replaced(link: re.Match[str]) -> str:
        image, words, target, anchor = link.groups()
        path = (source.parent / target).resolve()
        if path in PAGES:
            path = HERE / f"{PAGES[path]}.md"
        elif not path.exists():
            return link[0]
        elif not image and DOCS not in path.parents:
            return words
        return f"{image}[{words}]({os.path.relpath(path, page.parent)}{anchor or ''})"

    return LINK.sub(replaced, text)


def command_line() -> str:
    """The help of every command, without the list of them, which stands beside the page."""
    from dualprop.cli import app

    text = app.generate_docs(output_format="markdown", heading_level=1)
    return re.sub(
        r"^# dualprop\n(.*?)^## Table of Contents\n.*?(?=^\*\*Commands)",
        r"# The command line\n\1",
        text,
        flags=re.M | re.S,
    )


def gather(app: Sphinx) -> None:
    """Make the pages."""
    HERE.mkdir(exist_ok=True)
    texts = {HERE / "cli.md": command_line()}
    for source, name in PAGES.items():
        page = HERE / f"{name}.md"
        texts[page] = linked(source.read_text(encoding="utf-8"), source, page)
    for page, text in texts.items():
        if not page.exists() or page.read_text(encoding="utf-8") != text:  # what is new is built again
            page.write_text(text, encoding="utf-8")


def read(app: Sphinx, name: str, text: list[str]) -> None:
    """The same for the pages that lie here."""
    page = DOCS / f"{name}.md"
    text[0] = linked(text[0], page, page)


def setup(app: Sphinx) -> dict[str, bool]:
    """The pages are made before Sphinx looks for them."""
    app.connect("builder-inited", gather)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
