"""The leaky ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualprop.arguments import PositivePortion, checked
from dualprop.nets.potentials.base import Potential, total


@checked
@dataclass(frozen=True)
class LeakyReLU(Potential):
    """G(z) = Σ ½z² where z >= 0 and z²/(2 slope) where z < 0; f(a) = a or slope·a.

    Args:
        slope: the derivative for negative drives, in (0, 1].

    Raises:
        DualpropError: if `slope` is outside (0, 1].
    """

    slope: PositivePortion = 0.01

    elementwise = True

    def __call__(self, a: Tensor) -> Tensor:
        """`a` where it is positive, slope·a elsewhere."""
        return F.leaky_relu(a, self.slope)

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a."""
        return F.leaky_relu_(a, self.slope)

    def piece(self, z: Tensor) -> Tensor:
        """Which of the two lines."""
        return (z > 0).int()

    def module(self) -> nn.Module:
        """`torch.nn.LeakyReLU`."""
        return nn.LeakyReLU(self.slope)

    def energy(self, z: Tensor) -> Tensor:
        """Σ ½z² / (1 or slope) per sample."""
        return total(0.5 * z * z / torch.where(z < 0, self.slope, 1.0))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ ½a² · (1 or slope) per sample."""
        return total(0.5 * a * a * torch.where(a < 0, self.slope, 1.0))
