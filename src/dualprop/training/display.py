"""What a person sees while a run trains: a bar in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger("dualprop")

REFRESHES = 4  # of the bar, per second


def epoch_line(title: str, epoch: int, epochs: int, numbers: dict[str, float]) -> str:
    """One line that says how an epoch went."""
    parts = [f"{title}  epoch {epoch}/{epochs}  loss {numbers['loss']:.4f}  train {numbers['accuracy']:.2%}"]
    if "val_accuracy" in numbers:
        parts.append(f"val {numbers['val_accuracy']:.2%}")
    parts.append(f"{numbers['images_per_second']:,.0f} images/s  {numbers['seconds']:.1f} s")
    return "  ".join(parts)


class Silence:
    """Shows nothing: where another process speaks.

    Args:
        title: what is trained, for example "dp on mnist".
        epochs: how many there will be.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.epochs = title, epochs

    def step(self, epoch: int, done: int, total: int, so_far: Callable[[], dict[str, float]]) -> None:
        """After a batch: its number in the epoch, and how to ask for loss, accuracy and images/s so far."""

    def epoch(self, epoch: int, numbers: dict[str, float]) -> None:
        """After an epoch."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""


class Lines(Silence):
    """One log line at the end of every epoch."""

    def epoch(self, epoch: int, numbers: dict[str, float]) -> None:
        """Say how it went."""
        logger.info(epoch_line(self.title, epoch, self.epochs, numbers))


class Bar(Lines):
    """A bar with loss, accuracy and images/s, and the line of every finished epoch above it."""

    def __init__(self, title: str, epochs: int, console: Console) -> None:
        super().__init__(title, epochs)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  train {task.fields[accuracy]:.2%}"),
            TextColumn("{task.fields[images_per_second]:,.0f} images/s"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
        )
        self._task = self._progress.add_task(title, total=None, loss=0.0, accuracy=0.0, images_per_second=0.0)
        self._moved = 0.0

    def step(self, epoch: int, done: int, total: int, so_far: Callable[[], dict[str, float]]) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        if now - self._moved >= 1 / REFRESHES:
            self._moved = now
            description = f"{self.title}  epoch {epoch}/{self.epochs}"
            numbers: dict[str, Any] = so_far()
            self._progress.update(self._task, description=description, completed=done, total=total, **numbers)

    def epoch(self, epoch: int, numbers: dict[str, float]) -> None:
        """Print the epoch's line above the bar."""
        self._progress.console.print(epoch_line(self.title, epoch, self.epochs, numbers), highlight=False)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar down."""
        self._progress.stop()


def display(title: str, epochs: int, leads: bool = True) -> Silence:
    """The display that fits where the output goes, for a process that leads; silence for others."""
    if not leads:
        return Silence(title, epochs)
    console = Console(stderr=True)
    return Bar(title, epochs, console) if console.is_terminal else Lines(title, epochs)
