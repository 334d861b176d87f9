"""Mean loss and accuracy over the samples seen."""

from __future__ import annotations

import torch
from torch import Tensor

BATCHES = 16  # judged together: a few operations for all of them cost as much as for one


class Meter:
    """Sums over samples: loss and correct answers.

    Args:
        loss: sum of the losses so far.
        correct: number of correct answers so far.
        samples: number of samples so far.
    """

    def __init__(self, loss: float = 0.0, correct: int = 0, samples: int = 0) -> None:
        self.loss, self._correct, self.samples = loss, correct, samples
        self._pending: list[tuple[Tensor, Tensor]] = []

    def add(self, loss: float, output: Tensor, y: Tensor) -> None:
        """Count one batch: its mean loss, outputs of shape (B, num_classes) and classes (B,)."""
        self.loss += loss * len(y)
        self.samples += len(y)
        self._pending.append((output, y))
        if len(self._pending) == BATCHES:
            self._judge()

    @property
    def correct(self) -> int:
        """The number of samples with their largest output at their class."""
        self._judge()
        return self._correct

    def _judge(self) -> None:
        if self._pending:
            outputs, targets = (torch.cat(side) for side in zip(*self._pending, strict=True))
            self._correct += int((outputs.argmax(1) == targets).sum())
            self._pending.clear()

    def means(self) -> dict[str, float]:
        """Loss and accuracy per sample."""
        return {"loss": self.loss / self.samples, "accuracy": self.correct / self.samples}

    def state_dict(self) -> dict[str, float]:
        """The sums, as the constructor takes them."""
        return {"loss": self.loss, "correct": self.correct, "samples": self.samples}

    def __add__(self, other: Meter) -> Meter:
        """Both sets of samples together."""
        return Meter(self.loss + other.loss, self.correct + other.correct, self.samples + other.samples)
