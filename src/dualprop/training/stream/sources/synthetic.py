"""Clouds of points whose classes, places or coordinates change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.sources.base import Item, Source, mixed


class Drifting(Source):
    """Clouds of points around the classes' centres, where something changes.

    Args:
        settings: source, period and seed.
    """

    in_shape, classes = (20,), 5

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        generator = torch.Generator().manual_seed(settings.seed)
        self._centres = 2 * torch.randn(self.classes, *self.in_shape, generator=generator)
        self._goal = 2 * torch.randn(self.classes, *self.in_shape, generator=generator)

    def items(self, start: int) -> Iterator[Item | None]:
        """Without end; each is drawn by its number alone."""
        seed, period = self._settings.seed, self._settings.period
        change = DRIFTS[self._settings.source]
        number = start
        while True:
            generator = torch.Generator().manual_seed(mixed(seed, number))
            y = int(torch.randint(self.classes, (), generator=generator))
            noise = torch.randn(self.in_shape, generator=generator)
            yield Item(*change(self, noise, y, number, period))
            number += 1

    def permuted_inputs(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """Every period the inputs change places."""
        return (self._centres[y] + noise)[self._order(self.in_shape[0], number // period)], y

    def permuted_labels(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """Every period the classes change names."""
        return self._centres[y] + noise, int(self._order(self.classes, number // period)[y])

    def gradual(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """The centres go to other places and back, in two periods."""
        way = 0.5 - 0.5 * math.cos(math.pi * number / period)
        return torch.lerp(self._centres[y], self._goal[y], way) + noise, y

    def _order(self, count: int, turn: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed(self._settings.seed, turn, 1))
        return torch.randperm(count, generator=generator)


DRIFTS: dict[str, Callable[[Drifting, Tensor, int, int, int], tuple[Tensor, int]]] = {
    "permuted-inputs": Drifting.permuted_inputs,
    "permuted-labels": Drifting.permuted_labels,
    "gradual": Drifting.gradual,
}
