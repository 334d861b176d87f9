"""What a person sees while workers train: a bar with a line a worker, and a line an epoch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dualprop.training.callbacks.display import REFRESHES, Display
from dualprop.training.workers.crew import Crew, Line

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class Lines(Display):
    """The bar and the epochs' lines of every run; below the bar a line for each worker.

    Args:
        title: what is trained.
        crew: the workers.
        console: where to show it; stderr by default.
    """

    def __init__(self, title: str, crew: Crew, console: Console | None = None) -> None:
        super().__init__(title, console)
        self._crew = crew
        self._rows = [self._progress.add_task("", total=None, so_far="") for _ in crew.lines]
        self._told = time.monotonic()

    def step(self, trainer: Trainer) -> None:
        """Move the bar, a few times a second."""
        super().step(trainer)
        now = time.monotonic()
        if not self._progress.disable and now - self._told >= 1 / REFRESHES:
            self._told = now
            for number, (row, line) in enumerate(zip(self._rows, self._crew.lines, strict=True), 1):
                self._progress.update(row, description="", so_far=Text(told(number, line)))


def told(number: int, line: Line) -> str:
    """A worker in a line.

    Example:
        >>> told(2, Line("layers 2-3", {"updates": 10, "stale": 20, "skipped": 1}, 5.0, age=0.0123, dropped=3))
        'worker 2 (layers 2-3)  5 updates/s  age 12 ms  1 skipped  3 lost  staleness 2.0'
    """
    parts = [f"worker {number} ({line.name})", f"{line.speed:,.0f} updates/s", f"age {1000 * line.age:.0f} ms"]
    for name in ("skipped", "late", "doubled", "refused"):
        if count := line.counts.get(name):
            parts.append(f"{count:,.0f} {name}")
    if line.dropped:
        parts.append(f"{line.dropped:,} lost")
    parts.append(f"staleness {line.staleness:.1f}")
    if line.share < 1:
        parts.append(f"slow: takes {line.share:.0%} of each batch")
    if line.restarts:
        parts.append(f"restarted {line.restarts}×")
    if line.state != "works":
        parts.append(line.state)
    return "  ".join(parts)
