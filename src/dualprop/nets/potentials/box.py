"""Projections onto a box: linear, ReLU, hard sigmoid, hard tanh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.nets.potentials.base import Potential, total


@dataclass(frozen=True)
class Box(Potential):
    """G(z) = ½‖z‖² on low <= z <= high, f(a) = min(max(a, low), high).

    The linear layer (no bounds), ReLU ([0, ∞)), hard sigmoid ([0, 1]) and hard tanh ([-1, 1]) are boxes. The first
    of them takes complex drives.

    Args:
        low: lower bound of every neuron, -∞ for none.
        high: upper bound, ∞ for none.
    """

    low: float = -math.inf
    high: float = math.inf

    projects = True
    elementwise = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "holomorphic", self.low == -math.inf and self.high == math.inf)

    def __call__(self, a: Tensor) -> Tensor:
        """The projection of `a` onto the box."""
        if self.low == 0 and self.high == math.inf:
            return torch.relu(a)  # the kernel that the plain forward pass would use
        if self.low == -math.inf and self.high == math.inf:
            return a
        if math.isfinite(self.high - self.low):
            return F.hardtanh(a, self.low, self.high)  # a clamp that `dualprop.convert` knows
        return a.clamp(self.low, self.high)

    def over(self, a: Tensor) -> Tensor:
        """The projection, written over a."""
        if self.low == -math.inf and self.high == math.inf:
            return a
        return a.relu_() if self.low == 0 and self.high == math.inf else a.clamp_(self.low, self.high)

    def over_parts(self, re: Tensor, im: Tensor) -> None:
        """Nothing to do for the linear layer, the one box whose f is holomorphic."""
        if not self.holomorphic:
            super().over_parts(re, im)

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `Potential.dyad`, but where both states are inside the box their difference is (up + down) d itself.

        So no nudge is too small: plus minus minus would lose it in the rounding of a.
        """
        if self.stable(up, down, share):  # the fast way
            nudge = torch.abs(d)
            if up != 0.5:
                nudge.mul_(2 * up)
            higher = self.over(torch.add(a, nudge, alpha=0.5, out=out))
            length = torch.minimum(nudge, higher - self.low if self.low else higher, out=nudge)
            return higher.sub_(length, alpha=0.5), length.copysign_(d)
        plus, minus = torch.add(a, d, alpha=up), torch.sub(a, d, alpha=down, out=out)
        inside = (plus >= self.low) & (plus <= self.high) & (minus >= self.low) & (minus <= self.high)
        plus, minus = self.over(plus), self.over(minus)
        difference = torch.where(inside, (up + down) * d, plus - minus)
        return minus.lerp_(plus, share), difference

    def raised(self, a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """As `Potential.raised`: with p = f(a), the rise is e + (a - p) between low - p and high - p."""
        if self.low == -math.inf and self.high == math.inf:
            return a + e, e
        p = self(a)
        rise = torch.sub(a, p).add_(e)
        if self.low == 0 and self.high == math.inf:
            rise = torch.maximum(rise, -p, out=rise)
        else:
            rise = torch.clamp(rise, self.low - p, self.high - p, out=rise)
        return self.over(p.add_(rise)), rise

    def stable(self, up: float, down: float, share: float) -> bool:
        """At α = ½ where there is no upper bound, as for ReLU."""
        return up == down and share == 0.5 and self.high == math.inf

    def energy(self, z: Tensor) -> Tensor:
        """½‖z‖² per sample, ∞ outside the box."""
        outside = (z < self.low) | (z > self.high)
        return total((0.5 * z * z).masked_fill(outside, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """z·a - ½‖z‖² at the projection z: ½a² inside the box and linear beyond it."""
        inside = a.clamp(self.low, self.high)
        beyond = torch.where(a == inside, 0.0, inside * (a - inside))
        return total(0.5 * inside * inside + beyond)
