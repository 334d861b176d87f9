"""Tables of words: in a terminal, in Markdown, as comma-separated values."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from dualprop.errors import printable

WIDTH = 80
"""Characters of a terminal that every table of ours should fit."""


@dataclass(frozen=True)
class Table:
    """Rows of words under names of columns. The first column is on the left, numbers are on the right.

    Words may come from files: what cannot be printed in them is escaped.

    Args:
        title: a line above it; none if empty.
        columns: their names.
        rows: as many words each.
        words: columns that are on the left, too.

    Example:
        >>> print(Table("", ("rule", "accuracy %"), [("bp", "93.42 ± 0.35")]).markdown())
        | rule | accuracy % |
        | --- | ---: |
        | bp | 93.42 ± 0.35 |
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value in (
            ("title", printable(self.title)),
            ("columns", tuple(map(printable, self.columns))),
            ("rows", [tuple(map(printable, row)) for row in self.rows]),
        ):
            object.__setattr__(self, name, value)

    def markdown(self) -> str:
        """The table in Markdown; the title is left to the text around it."""
        sides = ["---" if self.left(i) else "---:" for i in range(len(self.columns))]
        head, *rows = ([marked(cell) for cell in cells] for cells in (self.columns, *self.rows))
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, sides, *rows))

    def left(self, column: int) -> bool:
        """Whether a column is on the left."""
        return column == 0 or self.columns[column] in self.words

    def csv(self) -> str:
        """The table as comma-separated values."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *self.rows])
        return text.getvalue()

    def terminal(self) -> RichTable:
        """What a terminal shows below the title: names are broken into lines, so that it fits; numbers never."""
        names = [_parts(name) for name in self.columns]
        cells = list(zip(*self.rows, strict=True)) or [()] * len(names)
        widths = [
            max(len(word.rstrip()) for word in (*own, *name)) for own, name in zip(cells, names, strict=True)
        ]
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
        if sum(widths) + gap * (len(widths) - 1) > WIDTH:
            widths[0] = max(len(word) for words in (self.columns[0], *cells[0]) for word in words.split())
        table = RichTable(
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, gap - 1, 0, 0),  # and a character of the box
            show_edge=False,
        )
        for i, (name, width) in enumerate(zip(names, widths, strict=True)):
            justify: Literal["left", "right"] = "right" if i else "left"
            table.add_column(
                _lines(name, width), justify=justify, no_wrap=True, vertical="bottom", min_width=width
            )
        for first, *others in self.rows:
            table.add_row(_lines(_parts(first), widths[0]), *others)
        return table


def marked(text: str) -> str:
    r"""A text, which may come from files, as Markdown shows it: no cell, tag, code or link begins in it.

    Example:
        >>> print(marked("a|b <img> [d](e)"))
        a\|b &lt;img> [d]\(e)
    """
    return re.sub(r"[|`]|(?<=\])\(", r"\\\g<0>", printable(text).replace("<", "&lt;"))


def _parts(text: str) -> list[str]:
    """Where a text may be broken: after spaces and strokes."""
    return [part for part in re.split(r"(?<=[ /])", text) if part]


def _lines(parts: Sequence[str], width: int) -> str:
    """As few lines as there can be."""
    lines = [""]
    for part in parts:
        if len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines if line)


def show(*parts: str | Table, remarks: Iterable[str] = ()) -> None:
    """Print lines and tables, then remarks as a list.

    Args:
        parts: what is printed, one below the other.
        remarks: a line each, broken where the terminal ends.
    """
    console = Console(markup=False, highlight=False)
    console.width = max(
        console.width, WIDTH
    )  # a narrower terminal breaks its lines: to cut cells off loses numbers
    for part in parts:
        if isinstance(part, Table) and part.title:
            console.print(part.title, style="bold")
        console.print(part.terminal() if isinstance(part, Table) else printable(part))
        console.print()
    for line in map(printable, remarks):
        lines = textwrap.wrap(line, console.width - 2, break_on_hyphens=False)
        console.print("- " + "\n  ".join(lines))
