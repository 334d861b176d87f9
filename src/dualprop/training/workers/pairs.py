"""Batches by one number, counted over all epochs: whoever knows the number knows the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dualprop.training.trainer import Epochs

AHEAD = 32
"""Batches that are read for nothing rather than beginning an epoch anew at another place."""
KEPT = 128
"""Targets that are remembered, for messages that overtake each other."""


class Pairs:
    """Inputs and targets of batch t = epoch · (batches in an epoch) + batch.

    Args:
        epochs: the batches by epoch, the same whenever they are asked for.

    Example:
        >>> from dualprop.data import Batches, Split
        >>> import torch
        >>> data = Batches(Split(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5)), 2)
        >>> pairs = Pairs(data)
        >>> len(pairs), pairs.y(1), pairs.y(5)
        (3, tensor([2, 3]), tensor([4]))
    """

    def __init__(self, epochs: Epochs) -> None:
        self._epochs, self._length = epochs, len(epochs)
        self._batches: Iterator[tuple[Any, Tensor]] = iter(())
        self._epoch, self._next = -1, 0  # of which epoch the iterator is, and the number that comes next
        self._targets: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._length

    def x(self, batch: int) -> Tensor:
        """The inputs."""
        return self._pair(batch)[0]

    def y(self, batch: int) -> Tensor:
        """The targets."""
        if batch not in self._targets:
            self._pair(batch)
        return self._targets[batch]

    def _pair(self, batch: int) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(batch, self._length)
        if epoch != self._epoch or not 0 <= batch - self._next <= AHEAD:
            self._batches, self._epoch, self._next = iter(self._epochs.epoch(epoch, number)), epoch, batch
        pair = None
        while self._next <= batch:
            pair = next(self._batches)
            self._targets[self._next] = pair[1]
            self._next += 1
        assert pair is not None
        while len(self._targets) > KEPT:
            del self._targets[next(iter(self._targets))]
        return pair
