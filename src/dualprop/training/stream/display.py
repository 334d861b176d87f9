"""What a person sees while a stream is followed: a live line in a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from dualprop.training.callbacks.display import REFRESHES, stderr
from dualprop.training.stream.follower import Stream

EVERY = 30.0
"""Seconds between two lines where nobody watches."""


class Display:
    """Shows ticks, accuracy so far and over the last thousand, ticks per second, and changes that were seen.

    Args:
        title: what is followed.
        console: where to show it; stderr by default.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title, self._console = title, stderr() if console is None else console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            refresh_per_second=REFRESHES,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=None)
        self._moved, self._ticks, self._drifts = time.monotonic(), -1, 0

    def __call__(self, stream: Stream) -> None:
        """After every tick."""
        if len(stream.counts.drifts) > self._drifts:
            self._drifts = len(stream.counts.drifts)
            self._say(f"{self.title}  a change was seen at tick {stream.counts.drifts[-1]:,}")
        now = time.monotonic()
        past = now - self._moved
        if past < (EVERY if self._progress.disable else 1 / REFRESHES):
            return
        ticks = stream.learner.ticks
        speed = (ticks - self._ticks) / past if self._ticks >= 0 else math.nan
        self._moved, self._ticks = now, ticks
        line = self._line(stream, speed)
        if self._progress.disable:
            self._say(line)
        else:
            self._progress.update(self._task, description=line)

    def _line(self, stream: Stream, speed: float) -> str:
        counts = stream.counts
        parts = [f"{self.title}  {stream.learner.ticks:,} ticks"]
        if counts.judged:
            parts.append(
                f"accuracy {counts.accuracy:.2%}, last {len(counts.recent):,} {counts.recent_accuracy:.2%}"
            )
        if math.isfinite(speed):
            parts.append(f"{speed:,.0f} ticks/s")
        parts += [
            f"{number:,} {what}"
            for what, number in {
                "changes": len(counts.drifts),
                "dropped": stream.dropped,
                "unread": counts.unread,
            }.items()
            if number
        ]
        return "  ".join(parts)

    def _say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def __enter__(self) -> Display:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
