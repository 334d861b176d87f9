"""Checkpoints: after every epoch, every so many seconds, and when somebody asks the run to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualprop.errors import DivergenceError, Interrupted
from dualprop.runs.folder import CHECKPOINT, Run
from dualprop.training.callbacks.base import Callback
from dualprop.training.interrupt import Interrupt

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class Checkpoints(Callback):
    """Saves what is needed to go on; last in the list, for what others do at the same moment is then part of it.

    Weights that have gone astray are not saved, and whatever diverges is told with the last good checkpoint.

    Args:
        run: the run folder.
        every: seconds between two checkpoints within an epoch.
    """

    def __init__(self, run: Run, every: float) -> None:
        self.run, self.every = run, every

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask to stop."""
        self._saved = time.perf_counter()
        try:
            with Interrupt() as self._interrupt:
                yield
        except DivergenceError as error:
            good = self.run.load()["counters"]["step"]
            path = self.run.path / CHECKPOINT
            raise DivergenceError(f"{error}; the last good checkpoint is {path}, of step {good}") from None

    def step(self, trainer: Trainer) -> None:
        """Save if it is time or somebody asks to stop; the epoch's own checkpoint follows its last batch."""
        if trainer.batch == len(trainer.data):
            return
        processes = trainer.processes
        due = processes.leads and time.perf_counter() - self._saved >= self.every  # clocks differ
        asked, due = processes.any(self._interrupt.asked, due)
        if asked or due:
            trainer.check_weights()
            self._save(trainer)
        if asked:
            raise self._interrupted(trainer)

    def epoch(self, trainer: Trainer) -> None:
        """Save."""
        self._save(trainer)
        (asked,) = trainer.processes.any(self._interrupt.asked)
        if asked and trainer.epoch < trainer.epochs:
            raise self._interrupted(trainer)

    def _save(self, trainer: Trainer) -> None:
        state = trainer.state_dict()
        trainer.check_state(state)
        self.run.save(state)
        self._saved = time.perf_counter()

    def _interrupted(self, trainer: Trainer) -> Interrupted:
        return Interrupted(
            f"stopped after step {trainer.step}; go on with: dualprop train --resume {self.run.path}"
        )
