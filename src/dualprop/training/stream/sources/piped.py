"""Lines of JSON or CSV on standard input."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TextIO

from dualprop.errors import DataError, DualpropError
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.sources.lines import Lines, Sample, Unread
from dualprop.training.stream.sources.named import Named
from dualprop.training.stream.sources.pipe import Pipe


class Piped(Named):
    """Lines of JSON or CSV.

    Args:
        settings: target, standardise.
        pipe: where they come from.
    """

    def __init__(self, settings: StreamSettings, pipe: Pipe) -> None:
        self._pipe = pipe
        super().__init__(settings, self._samples_of(Lines(settings.target)))

    @property
    def dropped(self) -> int:
        """How many lines found no place to wait for the learner."""
        return self._pipe.dropped

    def _samples_of(self, lines: Lines) -> Iterator[Sample | Unread | None]:
        """What the lines say; None while waiting."""
        try:
            for numbered in self._pipe:
                if numbered is None:
                    yield None
                elif (read := lines.read(numbered[1], numbered[0])) is not None:
                    yield read
        except (OSError, ValueError) as error:
            raise DataError(f"source=-: cannot be read on ({error})") from None


def of_stdin(settings: StreamSettings, stdin: TextIO) -> Piped:
    """What comes by standard input.

    Raises:
        DualpropError: if that is closed.
    """
    if stdin is None or stdin.closed:
        raise DualpropError("source=-: standard input is closed")
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # what is no UTF-8 is no JSON either
    return Piped(settings, Pipe(stdin, settings.places, drop=settings.drop))
