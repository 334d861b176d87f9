"""The logistic sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualprop.nets.potentials.base import Potential, total
from dualprop.nets.potentials.complex import logistic, logistic_over


@dataclass(frozen=True)
class Sigmoid(Potential):
    """G(z) = Σ z log z + (1-z) log(1-z), f = logistic sigmoid, G* = Σ log(1 + e^a)."""

    elementwise = True
    holomorphic = True

    def __call__(self, a: Tensor) -> Tensor:
        """1 / (1 + e^-a)."""
        return logistic(a) if a.is_complex() else torch.sigmoid(a)

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a if that is real."""
        return logistic(a) if a.is_complex() else a.sigmoid_()

    def over_parts(self, re: Tensor, im: Tensor) -> None:
        """f(re + i im) by real arithmetic, written over both parts."""
        logistic_over(re, im)

    def module(self) -> nn.Module:
        """`torch.nn.Sigmoid`."""
        return nn.Sigmoid()

    def energy(self, z: Tensor) -> Tensor:
        """Binary negative entropy per sample, ∞ outside [0, 1]."""
        inside = z.clamp(0, 1)
        entropy = torch.special.xlogy(inside, inside) + torch.special.xlog1py(1 - inside, -inside)
        return total(entropy.masked_fill(inside != z, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ log(1 + e^a) per sample."""
        return total(torch.logaddexp(a, torch.zeros_like(a)))
