"""A run's numbers for MLflow: the extra `mlflow`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dualprop.extras import extra
from dualprop.training.callbacks.tracker import Tracker

with extra("mlflow"):
    import mlflow


class MlflowCallback(Tracker):
    """Logs the numbers of every epoch and of the test, for `dualprop.train` and `dualprop.Trainer`.

    Args:
        parameters: what the run was made with, for example `settings.as_dict()`.
        options: of `mlflow.start_run`, for example `run_name`; a run that is to go on needs its `run_id`.
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.parameters, self.options = dict(parameters or {}), options

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """MLflow's run, with its parameters."""
        with mlflow.start_run(**self.options) as run:
            mlflow.log_params(self.parameters)
            yield run

    def log(self, run: Any, numbers: dict[str, float], epoch: int, step: int) -> None:
        """Its metrics."""
        mlflow.log_metrics(numbers, step=step)
