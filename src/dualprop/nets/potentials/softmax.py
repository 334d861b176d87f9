"""Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualprop.nets.potentials.base import Potential, total
from dualprop.nets.potentials.complex import exponential


def softmax(a: Tensor, dim: int = 1) -> Tensor:
    """e^a / Σ e^a over one dimension, of complex drives too."""
    if not a.is_complex():
        return torch.softmax(a, dim)
    powers = exponential(a - a.real.amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


@dataclass(frozen=True)
class Softmax(Potential):
    """G(z) = Σ z log z on the simplex over dimension 1, f = softmax, G* = log Σ exp."""

    holomorphic = True

    def __call__(self, a: Tensor) -> Tensor:
        """Softmax over dimension 1."""
        return softmax(a)

    def module(self) -> nn.Module:
        """`torch.nn.Softmax`."""
        return nn.Softmax(1)

    def energy(self, z: Tensor) -> Tensor:
        """Negative entropy per sample, ∞ off the simplex (to rounding)."""
        rounding = 8 * math.sqrt(torch.finfo(z.dtype).eps)
        off = (z < 0).any(1) | ((z.sum(1) - 1).abs() > rounding)
        entropy = torch.special.xlogy(z, z.clamp_min(0)).sum(1).masked_fill(off, math.inf)
        return total(entropy)

    def conjugate(self, a: Tensor) -> Tensor:
        """log Σ exp(a) per sample."""
        return total(torch.logsumexp(a, 1))
