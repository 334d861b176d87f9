"""Tables of words: in a terminal, in Markdown, as comma-separated values."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

WIDTH = 80
"""Characters of a terminal that every table of ours should fit."""

GAP = 2
"""Characters between two columns."""


@dataclass(frozen=True)
class Table:
    """Rows of words under names of columns. The first column is on the left, numbers are on the right.

    Args:
        title: a line above it; none if empty.
        columns: their names.
        rows: as many words each.

    Example:
        >>> print(Table("", ("rule", "accuracy %"), [("bp", "93.42 ± 0.35")]).markdown())
        | rule | accuracy % |
        | --- | ---: |
        | bp | 93.42 ± 0.35 |
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def widths(self) -> list[int]:
        """Of every column: its longest cell's, or the longest word's of its name."""
        cells = zip(*(map(len, row) for row in self.rows), strict=True) if self.rows else [()] * len(self.columns)
        return [max([*own, *map(len, name.split())]) for name, own in zip(self.columns, cells, strict=True)]

    @property
    def width(self) -> int:
        """Characters from left to right."""
        return sum(self.widths) + GAP * (len(self.columns) - 1)

    def markdown(self) -> str:
        """The table in Markdown; the title is left to the text around it."""
        sides = ["---"] + ["---:"] * (len(self.columns) - 1)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.columns, sides, *self.rows))

    def csv(self) -> str:
        """The table as comma-separated values."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *self.rows])
        return text.getvalue()

    def terminal(self) -> RichTable:
        """The table for a terminal: names of columns are broken into lines, cells never."""
        table = RichTable(
            title=self.title or None,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, GAP - 1, 0, 0),  # and a character of the box
            show_edge=False,
        )
        for i, (name, width) in enumerate(zip(self.columns, self.widths, strict=True)):
            lines = "\n".join(textwrap.wrap(name, width))
            table.add_column(lines, justify="right" if i else "left", no_wrap=True, vertical="bottom")
        for row in self.rows:
            table.add_row(*row)
        return table


def show(*parts: str | Table, remarks: Iterable[str] = ()) -> None:
    """Print lines and tables, then remarks as a list.

    Args:
        parts: what is printed, one below the other.
        remarks: a line each, broken where the terminal ends.
    """
    console = Console(markup=False, highlight=False)
    # a terminal that is narrower than a table wraps its lines; to cut its cells off would lose numbers
    console.width = max(console.width, *(part.width for part in parts if isinstance(part, Table)), 1)
    for part in parts:
        console.print(part.terminal() if isinstance(part, Table) else part)
        console.print()
    for line in remarks:
        console.print(textwrap.fill(line, console.width, initial_indent="- ", subsequent_indent="  "))
