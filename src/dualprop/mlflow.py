"""A run's numbers for MLflow: `pip install dualprop[mlflow]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dualprop.extras import extra
from dualprop.runs.recorder import scalars
from dualprop.training.callbacks import Callback
from dualprop.training.trainer import Trainer

with extra("mlflow"):
    import mlflow


class MlflowCallback(Callback):
    """Logs the numbers of every epoch and of the test, for `dualprop.train` and `dualprop.Trainer`.

    Args:
        parameters: what the run was made with, for example `settings.as_dict()`.
        options: of `mlflow.start_run`, for example `run_name`; a run that is to go on needs its `run_id`.
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.parameters, self.options = dict(parameters or {}), options
        self._run: Any = None

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """Its run is open, in the process that leads."""
        if not trainer.processes.leads:
            yield
            return
        with mlflow.start_run(**self.options) as self._run:
            mlflow.log_params(self.parameters)
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
            mlflow.log_metrics(scalars(kind, trainer.numbers), step=trainer.step)
