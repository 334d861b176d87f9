"""Potentials ½‖z‖² on an interval, whose activations project onto it."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.nets.kernels.arena import room
from dualprop.nets.potentials.base import Places, Potential, total


class Projection(Potential):
    """G(z) = ½‖z‖² on low <= z <= high, f(a) = min(max(a, low), high).

    Attributes:
        low: lower bound of every neuron, -∞ for none.
        high: upper bound, ∞ for none.
    """

    low: float
    high: float

    projects = True
    elementwise = True

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and difference; where both states are inside, the difference is (up + down) d itself.

        So no nudge is too small: plus minus minus would lose it in the rounding of a.
        """
        first, second = out or (None, None)
        plus, minus = torch.add(a, d, alpha=up), torch.sub(a, d, alpha=down, out=first)
        inside = (plus >= self.low) & (plus <= self.high) & (minus >= self.low) & (minus <= self.high)
        plus, minus = self.over(plus), self.over(minus)
        difference = torch.where(inside, (up + down) * d, plus - minus, out=second)
        return minus.lerp_(plus, share), difference

    def raised(self, a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """f(a + e) and its rise above p = f(a), which is e + (a - p), kept between low - p and high - p."""
        p = self.fresh(a)
        rise = torch.sub(a, p, out=room(a)).add_(e)
        for bound, kept in ((self.low, torch.maximum), (self.high, torch.minimum)):
            if math.isfinite(bound):
                kept(rise, torch.neg(p, out=room(p)).add_(bound), out=rise)
        return self.over(p.add_(rise)), rise

    def piece(self, z: Tensor) -> Tensor | None:
        """At the lower bound, between them, or at the upper one; None without bounds."""
        if math.isinf(self.low) and math.isinf(self.high):
            return None
        return (z > self.low).int() + (z >= self.high).int()

    def energy(self, z: Tensor) -> Tensor:
        """½‖z‖² per sample, ∞ outside the interval."""
        outside = (z < self.low) | (z > self.high)
        return total((0.5 * z * z).masked_fill(outside, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """z·a - ½‖z‖² at the projection z: ½a² inside the interval and linear beyond it."""
        inside = a.clamp(self.low, self.high)
        beyond = torch.where(a == inside, 0.0, inside * (a - inside))
        return total(0.5 * inside * inside + beyond)


class HalfLine(Projection):
    """A projection onto low <= z, with dyads in closed form at α = ½.

    The higher of the two states is h = f(a + up |d|), and the lower one min(h - low, 2 up |d|) below it. No number
    is subtracted from one near it, so low precision will do.
    """

    high = math.inf

    @override
    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        if not self.stable(up, down, share):
            return super().dyad(a, d, up, down, share, out)
        nudge = torch.abs(d)
        if up != 0.5:
            nudge.mul_(2 * up)
        first, second = out or (None, nudge)
        higher, fall = self.fall(torch.add(a, nudge, alpha=0.5, out=first), nudge)
        return higher.sub_(fall, alpha=0.5), torch.copysign(fall, d, out=second)

    @abstractmethod
    def fall(self, a: Tensor, nudge: Tensor) -> tuple[Tensor, Tensor]:
        """The state f(a), and f(a) - f(a - nudge) for nudges of at least 0; both may be written over."""

    def stable(self, up: float, down: float, share: float) -> bool:
        """At α = ½."""
        return up == down and share == 0.5
