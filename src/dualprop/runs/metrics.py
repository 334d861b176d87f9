"""metrics.jsonl: one record of numbers a line, written as a run goes and read by whoever looks at it."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualprop import files
from dualprop.errors import CheckpointError
from dualprop.runs.documents import reason, replace_file

logger = logging.getLogger("dualprop")

LARGE = 2**30
"""Bytes of metrics, at most; they are read line by line."""
LONGEST = 2**20
"""Of one line of them."""


class Metrics:
    """The lines of metrics of one run.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The records, one at a time; a last line cut short by a kill does not count.

        Args:
            kinds: of "train", "epoch" and "test" those that are wanted; all by default.

        Raises:
            CheckpointError: if a line is no record.
        """
        try:
            for line in self._lines():
                if line.endswith(b"\n") and ((record := _record(line))["kind"] in kinds or not kinds):
                    yield record
        except (ValueError, TypeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.path}: damaged ({reason(error)})") from None

    def readable(self) -> list[dict[str, Any]]:
        """The lines that are records; how many are not is a warning."""
        records, unreadable = [], 0
        for line in self._lines():
            try:
                records.append(_record(line))
            except (ValueError, TypeError):
                unreadable += 1
        if unreadable:
            lines = "1 line that is no record" if unreadable == 1 else f"{unreadable} lines that are no records"
            logger.warning("%s: %s left out", self.path, lines)
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Add a line.

        Raises:
            OSError: if it cannot be written.
        """
        line = f"{json.dumps(record)}\n".encode()
        with self.path.open("ab", buffering=0) as f:
            end = f.seek(0, os.SEEK_END)
            try:
                if f.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    f.truncate(end)  # no half of a line, that others would be appended to
                raise

    def rewind(self, step: int) -> None:
        """Drop the records that will be computed again: those of steps after `step`, and any test."""
        kept = (record for record in self.records("train", "epoch") if record["step"] <= step)
        lines = (f"{json.dumps(record)}\n".encode() for record in kept)
        replace_file(self.path, lambda f: f.writelines(lines))

    def _lines(self) -> Iterator[bytes]:
        """The lines as they are, one at a time; one that is too long is several."""
        try:
            with files.open_regular(self.path, LARGE) as lines:
                while line := lines.readline(LONGEST):
                    yield line if len(line) < LONGEST else line + b"\n"  # which is then no record
        except FileNotFoundError:
            return
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({reason(error)})") from None


def _record(line: bytes) -> dict[str, Any]:
    """A line of metrics, or a ValueError."""
    record = files.parse_json(line)
    if not isinstance(record, dict) or record.get("kind") not in ("train", "epoch", "test"):
        raise ValueError("a line that is no record")
    for name, value in record.items():
        values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        if name != "kind" and not all(type(each) in (int, float) for each in values):
            raise ValueError(f"{name}: not numbers")
    if type(record.get("step")) is not int or record["step"] < 0:
        raise ValueError(f"step={record.get('step')!r}: not a number of batches")
    return record
