"""What happens to gradients before the optimizer steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dualprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class AverageGradients(Callback):
    """Makes every gradient the mean over the processes that train together."""

    def gradients(self, trainer: Trainer) -> None:
        """Average."""
        trainer.processes.average_gradients(trainer.net.parameters())


class ClipGradients(Callback):
    """Scales all gradients down together where their norm is larger than allowed.

    Args:
        norm: the largest norm, positive.
    """

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def gradients(self, trainer: Trainer) -> None:
        """Clip."""
        torch.nn.utils.clip_grad_norm_(trainer.net.parameters(), self.norm)
