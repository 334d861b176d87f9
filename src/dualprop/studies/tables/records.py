"""Which records are cells of a table, by what they say and not by what they are called."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprop.errors import DualpropError
from dualprop.studies.tables.definition import Row, Table
from dualprop.studies.tables.makers import MAKERS, Record

logger = logging.getLogger("dualprop")


@dataclass(frozen=True, eq=False)
class Found:
    """A record that is a cell of a table.

    Attributes:
        row: that it belongs to.
        path: its folder.
        record: what that says.
        differences: for each name what the record has and what the table has, where schedule or data were
            shortened; empty for the full setting, which alone is compared.
    """

    row: Row
    path: Path
    record: Record
    differences: Mapping[str, tuple[Any, Any]]

    @property
    def seed(self) -> int:
        """The record's."""
        return self.record.settings.seed

    @property
    def numbers(self) -> Mapping[str, float]:
        """The record's, by the names of metrics and others; empty while it is not finished."""
        return self.record.numbers


def records(paths: Iterable[str | Path]) -> list[tuple[Path, str, Record]]:
    """Every record in some folders and in those below them: its path, its maker's name, what it says.

    What is damaged is left out with a warning.
    """
    found = []
    for folder in _folders(paths):
        for name, maker in MAKERS.items():
            try:
                record = maker.read(folder)
            except DualpropError as error:
                logger.warning("left out: %s", error)
                break
            if record is not None:
                found.append((folder, name, record))
    return found


def _folders(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Folders and those below them, in the order of their names, each once."""
    seen = set()
    for path in paths:
        for folder, below, _ in os.walk(path):
            below.sort()
            if (real := Path(folder).resolve()) not in seen:
                seen.add(real)
                yield Path(folder)


def find(table: Table, among: Iterable[tuple[Path, str, Record]]) -> list[Found]:
    """Those records that are cells of a table.

    Args:
        table: the table.
        among: as `records` gives them.
    """
    found = []
    for path, make, record in among:
        own = []
        for row in table.rows:
            if row.make == make:
                differences = row.maker.differences(row.settings(), record, row.classes)
                if differences is not None:
                    own.append(Found(row, path, record, differences))
        found += [each for each in own if not each.differences] or own  # in full of one row, it is of no other
    return found
