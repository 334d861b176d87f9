"""What a person sees while a run trains: a bar in a terminal or a notebook, and a line per epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
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


class NotebookBar:
    """A bar in a notebook: one output, there from its first step to its last."""

    def __init__(self) -> None:
        self._shown: Any = None

    def show(self, part: float, words: str) -> None:
        """Move it.

        Args:
            part: what is done, in [0, 1].
            words: what stands beside it.
        """
        html = f'<progress value="{part:.3f}" max="1"></progress> {escape(words)}'
        self._say({"text/plain": words, "text/html": html})

    def clear(self) -> None:
        """Take it away."""
        if self._shown is not None:
            self._say({"text/html": ""})

    def _say(self, what: dict[str, str]) -> None:
        if self._shown is None:
            from IPython.display import display

            self._shown = display(what, raw=True, display_id=True)
        else:
            self._shown.update(what, raw=True)


class Display(Callback):
    """The line of every finished epoch; in a terminal or a notebook also a bar with loss, accuracy and images/s.

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
        self._notebook = NotebookBar() if console.is_jupyter else None
        self._moved = 0.0

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """The bar is up."""
        try:
            with self._progress:
                yield
        finally:
            if self._notebook is not None:
                self._notebook.clear()

    def step(self, trainer: Trainer) -> None:
        """Move the bar, a few times a second."""
        now = time.monotonic()
        watched = self._notebook is not None or not self._progress.disable
        if watched and now - self._moved >= 1 / REFRESHES:
            self._moved = now
            numbers: dict[str, Any] = trainer.so_far()
            accuracy = f"  train {numbers['accuracy']:.2%}" if "accuracy" in numbers else ""
            title, total = f"{self.title}  epoch {trainer.epoch + 1}/{trainer.epochs}", len(trainer.data)
            so_far = f"loss {numbers['loss']:.4f}{accuracy}  {numbers['images_per_second']:,.0f} images/s"
            if self._notebook is not None:
                self._notebook.show(trainer.batch / total, f"{title}  {so_far}")
            self._progress.update(
                self._task, description=title, completed=trainer.batch, total=total, so_far=so_far
            )

    def epoch(self, trainer: Trainer) -> None:
        """Print the epoch's line above the bar."""
        line = epoch_line(self.title, trainer.epoch, trainer.epochs, trainer.numbers)
        self._progress.console.print(line, highlight=False, markup=False)
