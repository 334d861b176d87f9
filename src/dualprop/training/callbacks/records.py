"""What a run folder is told: numbers as they come, the best weights, the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from dualprop.runs.folder import Run
from dualprop.runs.recorder import Recorder
from dualprop.training.callbacks.base import Callback
from dualprop.training.callbacks.evaluation import Best, Validation
from dualprop.training.result import Result

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


RANGES = "ranges"
"""The note beside weights that says what the channels of their devices were calibrated to."""


class Records(Callback):
    """Records numbers every few steps, after each epoch and after the test.

    Args:
        run: the run folder.
        every: steps between two records within an epoch.
        validation: keeps the weights that are tested.
    """

    def __init__(self, run: Run, every: int, validation: Validation) -> None:
        self.run, self.every, self.validation = run, every, validation

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """The files are open."""
        self._recorded = trainer.step
        with Recorder(self.run, trainer.step) as self.recorder:
            yield

    def step(self, trainer: Trainer) -> None:
        """The means since the last record."""
        if trainer.step // self.every > self._recorded // self.every:  # workers may make several at once
            self._recorded = trainer.step
            numbers = trainer.meter.tell()
            self.recorder.record("train", trainer.step, epoch=trainer.epoch + 1, lr=trainer.lr, **numbers)

    def epoch(self, trainer: Trainer) -> None:
        """The epoch's numbers."""
        self.recorder.record("epoch", trainer.step, epoch=trainer.epoch, **trainer.numbers)

    def end(self, trainer: Trainer) -> None:
        """The test's."""
        assert self.validation.best is not None
        self.recorder.record("test", trainer.step, epoch=self.validation.best.epoch, **trainer.numbers)


class BestWeights(Callback):
    """Writes the best weights into the run folder whenever there are better ones, and at the end.

    Args:
        run: the run folder.
        validation: keeps them.
        notes: what else the file is to say, by name.
    """

    def __init__(self, run: Run, validation: Validation, **notes: object) -> None:
        self.run, self.validation, self.notes = run, validation, notes
        self._written: Best | None = None

    def epoch(self, trainer: Trainer) -> None:
        """Write them if they are new."""
        if self.validation.best is not self._written:
            self.end(trainer)

    def end(self, trainer: Trainer) -> None:
        """Write them."""
        best = self._written = self.validation.best
        assert best is not None
        devices = trainer.rule.devices
        ranges = {} if devices is None else {RANGES: json.dumps(devices.ranges)}
        self.run.save_weights("best.safetensors", best.weights, epoch=best.epoch, **self.notes, **ranges)


class Results(Callback):
    """Writes the result of the test.

    Args:
        run: the run folder.
        validation: keeps the weights that were tested.

    Attributes:
        result: what was written.
    """

    def __init__(self, run: Run, validation: Validation) -> None:
        self.run, self.validation = run, validation
        self.result: Result | None = None

    def end(self, trainer: Trainer) -> None:
        """Write it."""
        best, tested = self.validation.best, trainer.numbers
        assert best is not None
        self.result = Result(
            run=str(self.run.path),
            test_accuracy=tested.get("accuracy"),
            test_loss=tested["loss"],
            best_epoch=best.epoch,
            val_accuracy=best.numbers.get("accuracy"),
            seconds_per_epoch=trainer.seconds / trainer.epoch,
            test_accuracy_top5=tested.get("accuracy_top5"),
            val_accuracy_top5=best.numbers.get("accuracy_top5"),
        )
        self.run.finish(asdict(self.result))
