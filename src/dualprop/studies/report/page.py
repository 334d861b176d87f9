"""A report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from dualprop.studies._table import Table
from dualprop.studies.report.document import Document, Section

LARGEST = 500_000
"""Bytes of a page."""

ROWS = 250
"""Of a table on the page, at most."""

STYLE = re.compile(r' style="([^"]*)"')

KINDS = ("agrees", "differs", "within", "outside", "not")
"""Words in a verdict that decide what it looks like."""

GENERATOR = f"dualprop, matplotlib {matplotlib.__version__}"
"""Two pages by the same are compared byte for byte."""


class Looks:
    """What lines and letters of pictures look like, said once a page: a class for each that there is."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    @property
    def css(self) -> str:
        """A rule for each class."""
        return "".join(f".{name}{{{look}}}" for look, name in self._classes.items())

    def named(self, markup: str) -> str:
        """Markup with classes in place of what they stand for."""
        return STYLE.sub(
            lambda found: f' class="{self._classes.setdefault(found[1], f"s{len(self._classes)}")}"', markup
        )


def page(document: Document) -> str:
    """The page. Figures that would make it too large are left out, and it says so."""
    environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    environment.filters.update(kind=_kind, breakable=_breakable)
    template = environment.from_string(resources.files(__package__ or "").joinpath("page.html").read_text("utf-8"))
    picture: Any = vars(
        template.make_module({"document": document, "sections": (), "looks": "", "generator": ""})
    )["picture"]
    shown = [replace(section, tables=[*map(_cut, section.tables)]) for section in document.sections]
    figures: list[dict[int, Markup]] = [{} for _ in shown]
    missing = [[*section.missing, *_short(section)] for section in document.sections]

    looks = Looks()

    def rendered() -> str:
        drawn = ([each[n] for n in sorted(each)] for each in figures)
        sections = list(zip(shown, drawn, missing, strict=True))
        return template.render(document=document, sections=sections, looks=Markup(looks.css), generator=GENERATOR)

    size = len(rendered().encode("utf-8"))
    places = [(plan.spare, n, s) for s, section in enumerate(shown) for n, plan in enumerate(section.figures)]
    for _, n, s in sorted(places):  # first what says most of each table
        plan = shown[s].figures[n]
        before = len(looks.css)
        made = Markup(looks.named(picture(plan.drawn(f"f{s}-{n}"))))
        needed = len(made.encode("utf-8")) + len(looks.css) - before + 200
        if size + needed <= LARGEST:
            figures[s][n] = made
        else:
            missing[s].append(
                f"Left out, for the page would be larger than {LARGEST:,} bytes: {plan.figure.title}."
            )
        size += needed if n in figures[s] else 200
    return rendered()


def _cut(table: Table) -> Table:
    """As many rows as a page has room for, those with a published number first."""
    if len(table.rows) <= ROWS:
        return table
    column = table.columns.index("published") if "published" in table.columns else 0
    order = sorted(range(len(table.rows)), key=lambda n: (not table.rows[n][column], n))[:ROWS]
    return replace(table, rows=[table.rows[n] for n in sorted(order)])


def _short(section: Section) -> list[str]:
    more = sum(max(0, len(table.rows) - ROWS) for table in section.tables)
    return [f"{more:,} more rows are in the Markdown and CSV files of this report."] if more > 0 else []


def _kind(verdict: str) -> str:
    words = verdict.replace(",", " ").replace(":", " ").split()
    return next((kind for kind in KINDS if kind in words[:5]), "not")


def _breakable(words: str) -> Markup:
    """Paths may be broken behind their strokes."""
    return Markup("/<wbr>").join(escape(part) for part in words.split("/"))
