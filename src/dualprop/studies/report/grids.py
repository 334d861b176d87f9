"""Numbers that nobody has published: in a grid for each, or in a column for each, not in a row for each number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dualprop.studies._table import Table
from dualprop.studies.report.rows import Line
from dualprop.studies.tables import Row


@dataclass(frozen=True)
class Grid:
    """One number of a block, the last of its axes across the page and the others down.

    Attributes:
        title: of the block and the number.
        metric: the number.
        down: what each row is.
        across: what each column is.
        means: over seeds, by row and column; None where nothing was finished.
        words: what is shown of each.
    """

    title: str
    metric: str
    down: Sequence[str]
    across: Sequence[str]
    means: Sequence[Sequence[float | None]]
    words: Sequence[Sequence[str]]

    def table(self) -> Table:
        """As a table."""
        rows = [(label, *words) for label, words in zip(self.down, self.words, strict=True)]
        return Table(self.title, ("", *self.across), rows)


def grids(rows: Sequence[Row], lines: Sequence[Line], diverged: Sequence[Row]) -> list[Grid]:
    """A grid for each number of a block; none where a number was published, or where there is no grid.

    Args:
        rows: all of one block.
        lines: the numbers of them.
        diverged: those of which there are records without a number.
    """
    if any(row.published or len(row.at) < 2 for row in rows):
        return []
    down, across = list(dict.fromkeys(map(_down, rows))), list(dict.fromkeys(map(_across, rows)))
    if min(len(down), len(across)) < 2:
        return []
    gone = {(_down(row), _across(row)) for row in diverged if row in rows}
    made = []
    for metric in dict.fromkeys(line.metric.title for line in lines):
        cells: dict[tuple[str, str], Line] = {}
        for line in lines:
            if line.metric.title == metric and line.values:
                cells.setdefault((_down(line.row), _across(line.row)), line)  # the full setting comes first
        places = [[(label, column) for column in across] for label in down]
        block = rows[0].block
        made.append(
            Grid(
                ": ".join(filter(None, (block, metric))) + f" (n = {_seeds(list(cells.values()))})",
                metric,
                down,
                across,
                [[_mean(cells.get(place)) for place in own] for own in places],
                [[_words(cells.get(place), place in gone) for place in own] for own in places],
            )
        )
    return made


def columns(title: str, lines: Sequence[Line], diverged: Sequence[Row]) -> Table:
    """What was measured, a row for each cell and a column for each number.

    Args:
        title: of the block.
        lines: numbers that have not been published.
        diverged: cells of the block of which there are records without a number.
    """
    metrics = {line.name: line.metric.title for line in lines}
    cells: dict[str, dict[str, Line]] = {}
    for line in lines:
        if line.group is not None:
            cells.setdefault(line.group.label, {})[line.name] = line
    rows = [(label, *(_words(own.get(metric), False) for metric in metrics)) for label, own in cells.items()]
    rows += [(row.label, *["diverged"] * len(metrics)) for row in diverged]
    return Table(f"{title or 'Not published'} (n = {_seeds(lines)})", ("", *metrics.values()), rows)


def _across(row: Row) -> str:
    axis, word = list(row.at.items())[-1]
    return f"{axis} {word}"


def _down(row: Row) -> str:
    kept = list(row.at.items())[:-1]
    return ", ".join(word if axis == "rule" else f"{axis} {word}" for axis, word in kept)


def _seeds(cells: Sequence[Line]) -> str:
    counts = sorted({len(line.values) for line in cells})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"


def _mean(line: Line | None) -> float | None:
    return None if line is None else statistics.fmean(line.values)


def _words(line: Line | None, diverged: bool) -> str:
    if line is None:
        return "diverged" if diverged else ""
    return line.measured.partition(" (n")[0]
