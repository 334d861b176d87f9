"""What a person sees while a run trains: a bar in a terminal, one line per epoch elsewhere; both on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualprop.errors import printable
from dualprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer

REFRESHES = 4  # of the bar, per second


def epoch_line(title: str, epoch: int, epochs: int, numbers: Mapping[str, float]) -> str:
    """One line that says how an epoch went."""
    parts = [f"{title}  epoch {epoch}/{epochs}  loss {numbers['loss']:.4f}"]
    for name, key in (("train", "accuracy"), ("val", "val_accuracy")):
        if key in numbers:
            parts.append(f"{name} {numbers[key]:.2%}")
    parts.append(f"{numbers['images_per_second']:,.0f} images/s  {numbers['seconds']:.1f} s")
    return "  ".join(parts)


def stderr() -> Console:
    """Where what a person sees is shown."""
    return Console(stderr=True, soft_wrap=True)


class RunLine(Callback):
    """One line for a finished run, where there are many.

    Args:
        title: what is trained, for example "dp on mnist".
        console: where to show it; stderr by default.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title, self._console = printable(title), console or stderr()

    def end(self, trainer: Trainer) -> None:
        """Print it, once the test has been made."""
        parts = [f"{self.title}  {trainer.epoch} epochs  test loss {trainer.numbers['loss']:.4f}"]
        if "accuracy" in trainer.numbers:
            parts.append(f"test {trainer.numbers['accuracy']:.2%}")
        parts.append(f"{trainer.seconds:.1f} s")
        self._console.print("  ".join(parts), highlight=False, markup=False)


class Display(Callback):
    """The line of every finished epoch; in a terminal a bar with loss, accuracy and images/s below them.

    Args:
        title: what is trained, for example "dp on mnist".
        console: where to show it; stderr by default.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = printable(title)
        console = stderr() if console is None else console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[so_far]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(self.title, total=None, so_far="")
        self._moved = 0.0

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """The bar is up."""
        with self._progress:
            yield

    def step(self, trainer: Trainer) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        if not self._progress.disable and now - self._moved >= 1 / REFRESHES:
            self._moved = now
            numbers: dict[str, Any] = trainer.so_far()
            accuracy = f"  train {numbers['accuracy']:.2%}" if "accuracy" in numbers else ""
            self._progress.update(
                self._task,
                description=f"{self.title}  epoch {trainer.epoch + 1}/{trainer.epochs}",
                completed=trainer.batch,
                total=len(trainer.data),
                so_far=f"loss {numbers['loss']:.4f}{accuracy}  {numbers['images_per_second']:,.0f} images/s",
            )

    def epoch(self, trainer: Trainer) -> None:
        """Print the epoch's line above the bar."""
        line = epoch_line(self.title, trainer.epoch, trainer.epochs, trainer.numbers)
        self._progress.console.print(line, highlight=False, markup=False)
