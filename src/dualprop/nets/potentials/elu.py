"""The exponential linear unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualprop.nets.potentials.base import Potential, total


@dataclass(frozen=True)
class ELU(Potential):
    """G(z) = Σ ½z² where z >= 0 and (1+z) log(1+z) - z where -1 <= z < 0; f(a) = a or e^a - 1.

    References:
        Clevert, Unterthiner, Hochreiter, *Fast and Accurate Deep Network Learning by Exponential Linear Units*,
        ICLR 2016, with α = 1.
    """

    elementwise = True

    def __call__(self, a: Tensor) -> Tensor:
        """`a` where it is positive, e^a - 1 elsewhere."""
        return F.elu(a)

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a."""
        return F.elu_(a)

    def module(self) -> nn.Module:
        """`torch.nn.ELU`."""
        return nn.ELU()

    def energy(self, z: Tensor) -> Tensor:
        """Σ ½z² or (1+z) log(1+z) - z per sample, ∞ below -1."""
        negative = z.clamp(-1, 0)
        curved = torch.special.xlog1py(1 + negative, negative) - negative
        return total(torch.where(z < 0, curved, 0.5 * z * z).masked_fill(z < -1, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ ½a² or e^a - 1 - a per sample."""
        return total(torch.where(a < 0, torch.expm1(a) - a, 0.5 * a * a))
