"""What a run's numbers need to reach a tracker of experiments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from dualprop.runs.recorder import scalars
from dualprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class Tracker(Callback):
    """Logs the numbers of every epoch and of the test into a run of another library, in the process that leads."""

    _run: Any = None

    @abstractmethod
    def opened(self) -> AbstractContextManager[Any]:
        """A run of the library, which ends with the context."""

    @abstractmethod
    def log(self, run: Any, numbers: dict[str, float], epoch: int, step: int) -> None:
        """Give it numbers by their tags."""

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """Its run is open, in the process that leads."""
        if not trainer.processes.leads:
            yield
            return
        with self.opened() as self._run:
            yield
        self._run = None

    def epoch(self, trainer: Trainer) -> None:
        """Log the epoch's numbers."""
        self._log("epoch", trainer)

    def end(self, trainer: Trainer) -> None:
        """Log the test's."""
        self._log("test", trainer)

    def _log(self, kind: str, trainer: Trainer) -> None:
        if self._run is not None:
            self.log(self._run, dict(scalars(kind, trainer.numbers)), trainer.epoch, trainer.step)
