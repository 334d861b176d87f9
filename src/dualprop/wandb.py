"""A run's numbers for Weights & Biases: `pip install dualprop[wandb]`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualprop.extras import extra
from dualprop.runs.recorder import scalars
from dualprop.training.callbacks import Callback
from dualprop.training.trainer import Trainer

with extra("wandb"):
    import wandb


class WandbCallback(Callback):
    """Logs the numbers of every epoch and of the test, for `dualprop.train` and `dualprop.Trainer`.

    Args:
        options: of `wandb.init`, for example `project`, and `config=settings.as_dict()`; a run that is to go on
            needs its `id` and `resume="allow"`.

    Example:
        >>> import tempfile, dualprop as dp
        >>> settings, folder = dp.Settings(hidden=(16,), epochs=1), tempfile.mkdtemp()
        >>> logged = WandbCallback(project="digits", config=settings.as_dict(), mode="disabled", dir=folder)
        >>> dp.train(settings, folder + "/run", callbacks=[logged], progress=False).best_epoch
        1
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._run: Any = None

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """Its run is open, in the process that leads."""
        if not trainer.processes.leads:
            yield
            return
        with wandb.init(**self.options) as self._run:
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
            self._run.log({**scalars(kind, trainer.numbers), "epoch": trainer.epoch}, step=trainer.step)
