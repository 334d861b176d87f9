"""When states that are updated again and again have settled, and when they never will."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.errors import DivergenceError

ROUNDING = 16
"""Units of the last place that a state at a fixed point still moves by, and no more."""

Pairs = Mapping[int, tuple[Tensor, Tensor]]
"""z^+ and z^- of every layer."""


class Change(NamedTuple):
    """How far a state has moved in a round."""

    relative: float  # ‖Δz‖/‖z‖
    norm: float  # ‖Δz‖


class Settling:
    """The judge of an inference in rounds.

    Args:
        tolerance: the largest relative change ‖Δz‖/‖z‖ of a layer's states, over the batch, that ends it.
        dtype: the type of the products, below whose rounding nothing is growth.
    """

    def __init__(self, tolerance: float, dtype: torch.dtype) -> None:
        self.tolerance = tolerance
        self._least = max(tolerance, ROUNDING * torch.finfo(dtype).eps)
        self._moves: list[dict[int, Change]] = []

    @property
    def rounds(self) -> int:
        """How many it has seen."""
        return len(self._moves)

    @property
    def residual(self) -> float:
        """The largest relative change in the last round."""
        return max(change.relative for change in self._moves[-1].values())

    @property
    def settled(self) -> bool:
        """Whether no state has moved by more than the tolerance in the last round."""
        return self.residual <= self.tolerance

    def see(self, before: Pairs, after: Pairs) -> None:
        """A round.

        Raises:
            DivergenceError: if a state is not finite.
        """
        self._moves.append({k: _change(after[k], pair) for k, pair in before.items()})
        for k, change in self._moves[-1].items():
            if not math.isfinite(change.relative):
                raise DivergenceError(
                    f"inference diverged at step {self.rounds}, layer {k}: a state became NaN or infinite"
                )

    def check_growth(self) -> None:
        """Stop if a layer moves further in the last round than half way, where it did than after a quarter.

        States that grow by a factor in every round move by the same part of their norm, but ever further. What
        rounding moves is no growth.

        Raises:
            DivergenceError: naming round and layer.
        """
        steps = self.rounds
        for k, last in self._moves[-1].items():
            early, half = self._moves[steps // 4][k], self._moves[steps // 2][k]
            if steps >= 8 and last.relative > self._least and last.norm > half.norm > early.norm:
                raise DivergenceError(
                    f"inference does not settle by step {steps}, layer {k}: its states moved by {half.norm:.3g} "
                    f"half way and by {last.norm:.3g} in the end; give the schedule more damping"
                )


def _change(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> Change:
    """Of the two states, the one that has moved more, relatively, or is not finite."""
    changes = [_moved_by(z, before) for z, before in zip(new, old, strict=True)]
    return max(changes, key=lambda change: (not math.isfinite(change.relative), change.relative))


def _moved_by(z: Tensor, before: Tensor) -> Change:
    norm = float(torch.linalg.vector_norm(z - before, dtype=torch.float64))
    return Change(norm / float(torch.linalg.vector_norm(z, dtype=torch.float64)) if norm else 0.0, norm)
