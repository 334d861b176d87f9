"""The three files of a report, a page and the same as Markdown and CSV: written, or compared with those there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from dualprop import files
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.documents import write_text
from dualprop.studies.report.document import Document
from dualprop.studies.report.page import page

ENDINGS = (".html", ".md", ".csv")

LARGEST = 2**24
"""Bytes of a file that may be a report."""

OURS = re.compile(
    r'\A(<!DOCTYPE html>.*<meta name="generator" content="dualprop|# Published|table,part,claim,)', re.DOTALL
)
"""How our files begin."""

GENERATOR = re.compile(r'<meta name="generator" content="([^"]*)">')


def contents(document: Document, out: Path) -> dict[Path, str]:
    """What is in each of the files.

    Args:
        document: the report.
        out: the name of one of them, or of all without their ending.
    """
    stem = out.with_suffix("") if out.suffix in ENDINGS else out
    texts = page(document), document.markdown(), document.csv()
    return {stem.with_name(stem.name + ending): text for ending, text in zip(ENDINGS, texts, strict=True)}


def write(made: dict[Path, str]) -> None:
    """Write them; a former report is replaced.

    Raises:
        CheckpointError: if one cannot be written, or would replace a file that is no report.
    """
    for path in made:
        if (path.exists() or path.is_symlink()) and not OURS.match(_read(path)):
            raise CheckpointError(f"{path}: exists and is no report of ours; choose another name by --out")
    for path, text in made.items():
        write_text(path, text)


def check(made: dict[Path, str]) -> list[Path]:
    """Compare them with those that are there: each byte, and of a page by another matplotlib each number.

    Returns:
        Those that are there.

    Raises:
        DualpropError: if there is none, or for the first difference.
    """
    there = [path for path in made if path.exists()]
    if not there:
        raise DualpropError(f"check: none of {', '.join(map(str, made))} is there")
    for path in there:
        before, now = _read(path), made[path]
        if before == now:
            continue
        if path.suffix == ".html":
            for place, (old, new) in enumerate(_both(_cells(before), _cells(now)), 1):
                if old != new:
                    raise DualpropError(
                        f"{path}: cell {place} of its tables is {old!r}, but the records say {new!r}"
                    )
            if GENERATOR.findall(before) != GENERATOR.findall(now):
                continue  # matplotlib draws the same numbers otherwise
        for place, (old, new) in enumerate(_both(before.splitlines(), now.splitlines()), 1):
            if old != new:
                raise DualpropError(
                    f"{path}: line {place} is {_short(old)!r}, but the records say {_short(new)!r}"
                )
        raise DualpropError(f"{path}: other ends of lines than those of a report")
    return there


def _read(path: Path) -> str:
    try:
        return files.read_regular(path, LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def _both(before: list[str], now: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs, and nothing where one has no more."""
    longest = max(len(before), len(now))
    yield from zip(*(each + [""] * (longest - len(each)) for each in (before, now)), strict=True)


def _short(line: str) -> str:
    return line if len(line) <= 200 else f"{line[:200]}..."


class _Cells(HTMLParser):
    """The words of every cell of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.found.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data


def _cells(text: str) -> list[str]:
    parser = _Cells()
    parser.feed(text)
    return parser.found
