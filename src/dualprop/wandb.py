"""A run's numbers for Weights & Biases: the extra `wandb`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from dualprop.extras import extra
from dualprop.training.callbacks.tracker import Tracker

with extra("wandb"):
    import wandb


class WandbCallback(Tracker):
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

    def opened(self) -> AbstractContextManager[Any]:
        """A run of W&B's."""
        return wandb.init(**self.options)  # type: ignore[no-any-return]

    def log(self, run: Any, numbers: dict[str, float], epoch: int, step: int) -> None:
        """Its numbers, with the epoch."""
        run.log({**numbers, "epoch": epoch}, step=step)
