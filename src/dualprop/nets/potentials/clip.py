"""The hard sigmoid, the hard tanh and every other interval."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dualprop.arguments import Number, checked
from dualprop.errors import DualpropError
from dualprop.nets.potentials.projection import Projection


@checked
@dataclass(frozen=True)
class Clip(Projection):
    """G(z) = ½‖z‖² on low <= z <= high, f(a) = min(max(a, low), high).

    Args:
        low: lower bound of every neuron.
        high: upper bound, above the lower one.

    Raises:
        DualpropError: for bounds that are not finite, or leave nothing between them.

    Example:
        >>> import torch
        >>> Clip(0, 1)(torch.tensor([[-1.0, 0.25, 3.0]]))
        tensor([[0.0000, 0.2500, 1.0000]])
    """

    low: Number
    high: Number

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise DualpropError(f"low={self.low!r}: must be below high={self.high!r}")

    def __call__(self, a: Tensor) -> Tensor:
        """The projection of a."""
        return F.hardtanh(a, self.low, self.high)

    def over(self, a: Tensor) -> Tensor:
        """The projection, written over a."""
        return a.clamp_(self.low, self.high)

    def module(self) -> nn.Module:
        """`torch.nn.Hardtanh`."""
        return nn.Hardtanh(self.low, self.high)
