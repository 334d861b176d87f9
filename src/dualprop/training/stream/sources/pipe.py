"""Lines that are read ahead of a learner, and what becomes of those for which there is no place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TextIO

LONGEST = 2**24
"""Characters of a line; what follows them is left out."""

WAIT = 0.2
"""Seconds after which somebody who waits for a line is told that there is none yet."""


class Pipe:
    """Lines that another thread reads, so that waiting can be broken off; a bounded number of them waits.

    Where no place is left, whoever writes the lines waits, or the lines that come then are dropped and counted.

    Args:
        lines: where they come from.
        places: how many may wait.
        drop: whether those that find no place are dropped.

    Attributes:
        dropped: how many were.

    Example:
        >>> import io
        >>> list(Pipe(io.StringIO("a\\nb\\n"), places=1))
        [(1, 'a\\n'), (2, 'b\\n')]
    """

    def __init__(self, lines: TextIO, places: int, *, drop: bool = False) -> None:
        self.dropped = 0
        self._lines, self._drop = lines, drop
        self._waiting: queue.Queue[tuple[int, str] | Exception | None] = queue.Queue(places)

    def __iter__(self) -> Iterator[tuple[int, str] | None]:
        """Each line with its number, from 1; None for nothing yet.

        Raises:
            OSError, ValueError: if they cannot be read on.
        """
        threading.Thread(target=self._feed, daemon=True).start()
        while True:
            try:
                line = self._waiting.get(timeout=WAIT)
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            if isinstance(line, Exception):
                raise line
            yield line

    def _feed(self) -> None:
        try:
            for number, line in enumerate(iter(self._line, ""), 1):
                try:
                    self._waiting.put((number, line), block=not self._drop)
                except queue.Full:
                    self.dropped += 1
        except (OSError, ValueError) as error:  # a disk's, a closed file's
            self._waiting.put(error)
        self._waiting.put(None)

    def _line(self) -> str:
        """The next line, or the beginning of one that is too long; empty at the end."""
        line = rest = self._lines.readline(LONGEST)
        while len(rest) == LONGEST and not rest.endswith("\n"):
            rest = self._lines.readline(LONGEST)
        return line
