"""The states that a rule learns from: two of every neuron, their mean and their difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Two states of all neurons for one batch; index k = 0..L, k = 0 is the input.

    Which two they are is the rule's: nudged and free equilibria, targets and activities, or twice the same.

    Attributes:
        plus: z_k^+, the states nearer to the target, each of shape (B, ...).
        minus: z_k^-, of the same shapes; where nothing has nudged layer k yet, the very tensor of plus[k].
        share: that of the plus states in the mean, in [0, 1].
        mean: z̄_k = share z_k^+ + (1 - share) z_k^-, the activity (computed).
        difference: z_k^+ - z_k^-, which grows with the error (computed).

    Example:
        >>> state = State((torch.ones(2, 3),), (torch.zeros(2, 3),))
        >>> float(state.mean[0][0, 0]), float(state.difference[0][0, 0])
        (0.5, 1.0)
    """

    plus: tuple[Tensor, ...]
    minus: tuple[Tensor, ...]
    share: float = 0.5

    @cached_property
    def mean(self) -> tuple[Tensor, ...]:
        """z̄_k for k = 0..L."""
        return tuple(torch.lerp(m, p, self.share) for p, m in zip(self.plus, self.minus, strict=True))

    @cached_property
    def difference(self) -> tuple[Tensor, ...]:
        """z_k^+ - z_k^- for k = 0..L."""
        return tuple(map(torch.sub, self.plus, self.minus))
