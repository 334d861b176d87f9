"""The hyperbolic tangent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualprop.nets.potentials.base import Potential, total
from dualprop.nets.potentials.complex import logistic, logistic_over


@dataclass(frozen=True)
class Tanh(Potential):
    """G(z) = Σ ½(1+z) log(1+z) + ½(1-z) log(1-z), f = tanh, G* = Σ log cosh a."""

    elementwise = True
    holomorphic = True

    def __call__(self, a: Tensor) -> Tensor:
        """The hyperbolic tangent of a, 2 / (1 + e^-2a) - 1 of a complex one."""
        return 2 * logistic(2 * a) - 1 if a.is_complex() else torch.tanh(a)

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a if that is real."""
        return self(a) if a.is_complex() else a.tanh_()

    def over_parts(self, re: Tensor, im: Tensor) -> None:
        """f(re + i im) by real arithmetic, written over both parts."""
        logistic_over(re.mul_(2), im.mul_(2))
        re.mul_(2).sub_(1)
        im.mul_(2)

    def module(self) -> nn.Module:
        """`torch.nn.Tanh`."""
        return nn.Tanh()

    def energy(self, z: Tensor) -> Tensor:
        """Negative entropy of a ±1 spin of mean z per sample, ∞ outside [-1, 1]."""
        inside = z.clamp(-1, 1)
        entropy = torch.special.xlog1py(1 + inside, inside) + torch.special.xlog1py(1 - inside, -inside)
        return total((0.5 * entropy).masked_fill(inside != z, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ log cosh a per sample, without overflow."""
        return total(torch.logaddexp(a, -a) - math.log(2))
