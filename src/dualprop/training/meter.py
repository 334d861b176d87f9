"""Mean loss and accuracy over the samples seen, and what the rule measured over the batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

BATCHES = 16  # judged together: a few operations for all of them cost as much as for one


class Means:
    """Means of numbers by name, each over the times that it was given.

    Args:
        sums: for each name the sum so far, and how many numbers that is.
    """

    def __init__(self, sums: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.sums = dict(sums or {})

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count these numbers."""
        for name, number in numbers.items():
            self._count(name, float(number), 1)

    def _count(self, name: str, total: float, count: int) -> None:
        before, times = self.sums.get(name, (0.0, 0))
        self.sums[name] = before + total, times + count

    def __call__(self) -> dict[str, float]:
        """The mean of each."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def __add__(self, other: Means) -> Means:
        """Both sets of numbers together."""
        both = Means(self.sums)
        for name, (total, count) in other.sums.items():
            both._count(name, total, count)
        return both


class Meter:
    """Sums over samples: loss and correct answers; and the means over batches of what the rule measures.

    Args:
        loss: sum of the losses so far.
        correct: number of correct answers so far.
        samples: number of samples so far.
        measured: the sum of each measure so far, and how many batches had it.
    """

    def __init__(
        self,
        loss: float = 0.0,
        correct: int = 0,
        samples: int = 0,
        measured: Mapping[str, tuple[float, int]] | None = None,
    ) -> None:
        self.loss, self._correct, self.samples = loss, correct, samples
        self.measures = Means(measured)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def add(self, loss: float, output: Tensor, y: Tensor, measures: Mapping[str, float] | None = None) -> None:
        """Count one batch: its mean loss, outputs of shape (B, num_classes), classes (B,) and measures."""
        self.loss += loss * len(y)
        self.samples += len(y)
        self.measures.add(measures or {})
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

    def state_dict(self) -> dict[str, Any]:
        """The sums, as the constructor takes them."""
        sums = {"loss": self.loss, "correct": self.correct, "samples": self.samples}
        return {**sums, "measured": dict(self.measures.sums)}

    def __add__(self, other: Meter) -> Meter:
        """Both sets of samples together."""
        sums = self.loss + other.loss, self.correct + other.correct, self.samples + other.samples
        return Meter(*sums, (self.measures + other.measures).sums)
