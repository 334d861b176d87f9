"""Means of numbers by name."""

from __future__ import annotations

from collections.abc import Mapping


class Means:
    """Means of numbers by name, each over the times that it was given.

    Args:
        sums: for each name the sum so far, and how many numbers that is.
    """

    def __init__(self, sums: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.sums = {name: (float(total), int(count)) for name, (total, count) in (sums or {}).items()}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count these numbers."""
        for name, number in numbers.items():
            self._count(name, float(number), 1)

    def merge(self, other: Means) -> None:
        """Count all that the other has counted."""
        for name, (total, count) in other.sums.items():
            self._count(name, total, count)

    def _count(self, name: str, total: float, count: int) -> None:
        before, times = self.sums.get(name, (0.0, 0))
        self.sums[name] = before + total, times + count

    def __call__(self) -> dict[str, float]:
        """The mean of each."""
        return {name: total / count for name, (total, count) in self.sums.items()}
