"""Convex potentials G, their conjugates G* and the activations f = ∇G* that they induce.

An activation is what minimises its potential against a drive: f(a) = argmin_z G(z) - z·a. Hence Fenchel and
Young's inequality, G(z) + G*(a) - z·a >= 0, with equality exactly at z = f(a).

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.errors import DualpropError
from dualprop.registry import Registry


class Potential(ABC):
    """A convex function G of the states of one layer, with its activation and its conjugate.

    `projects` says that G is ½‖z‖² on a convex set, so that f is the projection onto that set. Squared error
    then has an exact output step (see `dualprop.losses.SquaredError`). `elementwise` says that every neuron's
    activation depends on its own drive alone, `holomorphic` that f takes complex drives and is differentiable
    there.

    Example:
        >>> import torch
        >>> relu = POTENTIALS["relu"]
        >>> relu(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
        >>> relu.energy(torch.tensor([[0.0, 2.0]])), relu.conjugate(torch.tensor([[-1.0, 2.0]]))
        (tensor([2.]), tensor([2.]))
    """

    projects = False
    elementwise = False
    holomorphic = False

    @abstractmethod
    def __call__(self, a: Tensor) -> Tensor:
        """The activation f(a) = argmin_z G(z) - z·a, of the shape of `a` (batch first)."""

    def over(self, a: Tensor) -> Tensor:
        """f(a), possibly written over a, which the caller gives up."""
        return self(a)

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and difference of the two states z^+ = f(a + up d) and z^- = f(a - down d).

        Args:
            a: the drive, shape (B, ...), in float32 at least unless `stable`.
            d: the feedback, of the same shape.
            up: α r_k, at least 0.
            down: ᾱ r_k, at least 0.
            share: that of z^+ in the mean.
            out: memory that may be written over, for example a itself.

        Returns:
            share z^+ + (1 - share) z^-, and z^+ - z^-.
        """
        plus = self.over(torch.add(a, d, alpha=up))
        minus = self.over(torch.sub(a, d, alpha=down, out=out))
        difference = plus - minus
        return minus.lerp_(plus, share), difference

    def stable(self, up: float, down: float, share: float) -> bool:
        """Whether `dyad` loses nothing in low precision: it never subtracts numbers that are nearly equal."""
        return False

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """G(z) per sample, shape (B,); infinite outside the domain of G."""

    @abstractmethod
    def conjugate(self, a: Tensor) -> Tensor:
        """G*(a) = max_z z·a - G(z) per sample, shape (B,)."""


def _sum(elements: Tensor) -> Tensor:
    """Sum over everything but the batch."""
    return elements.reshape(len(elements), -1).sum(1)


@dataclass(frozen=True)
class Box(Potential):
    """G(z) = ½‖z‖² on low <= z <= high, f(a) = min(max(a, low), high).

    The linear layer (no bounds), ReLU ([0, ∞)), hard sigmoid ([0, 1]) and hard tanh ([-1, 1]) are boxes.

    Args:
        low: lower bound of every neuron, -∞ for none.
        high: upper bound, ∞ for none.
    """

    low: float = -math.inf
    high: float = math.inf

    projects = True
    elementwise = True

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

    def stable(self, up: float, down: float, share: float) -> bool:
        """At α = ½ where there is no upper bound, as for ReLU."""
        return up == down and share == 0.5 and self.high == math.inf

    def energy(self, z: Tensor) -> Tensor:
        """½‖z‖² per sample, ∞ outside the box."""
        outside = (z < self.low) | (z > self.high)
        return _sum((0.5 * z * z).masked_fill(outside, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """z·a - ½‖z‖² at the projection z: ½a² inside the box and linear beyond it."""
        inside = a.clamp(self.low, self.high)
        beyond = torch.where(a == inside, 0.0, inside * (a - inside))
        return _sum(0.5 * inside * inside + beyond)


@dataclass(frozen=True)
class LeakyReLU(Potential):
    """G(z) = Σ ½z² where z >= 0 and z²/(2 slope) where z < 0; f(a) = a or slope·a.

    Args:
        slope: the derivative for negative drives, in (0, 1].

    Raises:
        DualpropError: if `slope` is outside (0, 1].
    """

    slope: float = 0.01

    elementwise = True

    def __post_init__(self) -> None:
        if not 0 < self.slope <= 1:
            raise DualpropError(f"slope={self.slope}: must be in (0, 1]")

    def __call__(self, a: Tensor) -> Tensor:
        """`a` where it is positive, slope·a elsewhere."""
        return F.leaky_relu(a, self.slope)

    def energy(self, z: Tensor) -> Tensor:
        """Σ ½z² / (1 or slope) per sample."""
        return _sum(0.5 * z * z / torch.where(z < 0, self.slope, 1.0))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ ½a² · (1 or slope) per sample."""
        return _sum(0.5 * a * a * torch.where(a < 0, self.slope, 1.0))


def softmax(a: Tensor) -> Tensor:
    """e^a / Σ e^a over dimension 1, of complex drives too."""
    if not a.is_complex():
        return torch.softmax(a, 1)
    powers = torch.exp(a - a.real.amax(1, keepdim=True))
    return powers / powers.sum(1, keepdim=True)


@dataclass(frozen=True)
class Softmax(Potential):
    """G(z) = Σ z log z on the simplex over dimension 1, f = softmax, G* = log Σ exp."""

    holomorphic = True

    def __call__(self, a: Tensor) -> Tensor:
        """Softmax over dimension 1."""
        return softmax(a)

    def energy(self, z: Tensor) -> Tensor:
        """Negative entropy per sample, ∞ off the simplex (to rounding)."""
        rounding = 8 * math.sqrt(torch.finfo(z.dtype).eps)
        off = (z < 0).any(1) | ((z.sum(1) - 1).abs() > rounding)
        entropy = torch.special.xlogy(z, z.clamp_min(0)).sum(1).masked_fill(off, math.inf)
        return _sum(entropy)

    def conjugate(self, a: Tensor) -> Tensor:
        """log Σ exp(a) per sample."""
        return _sum(torch.logsumexp(a, 1))


@dataclass(frozen=True)
class Sigmoid(Potential):
    """G(z) = Σ z log z + (1-z) log(1-z), f = logistic sigmoid, G* = Σ log(1 + e^a)."""

    elementwise = True

    def __call__(self, a: Tensor) -> Tensor:
        """1 / (1 + e^-a)."""
        return torch.sigmoid(a)

    def energy(self, z: Tensor) -> Tensor:
        """Binary negative entropy per sample, ∞ outside [0, 1]."""
        inside = z.clamp(0, 1)
        entropy = torch.special.xlogy(inside, inside) + torch.special.xlog1py(1 - inside, -inside)
        return _sum(entropy.masked_fill(inside != z, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ log(1 + e^a) per sample."""
        return _sum(torch.logaddexp(a, torch.zeros_like(a)))


@dataclass(frozen=True)
class Tanh(Potential):
    """G(z) = Σ ½(1+z) log(1+z) + ½(1-z) log(1-z), f = tanh, G* = Σ log cosh a."""

    elementwise = True

    def __call__(self, a: Tensor) -> Tensor:
        """The hyperbolic tangent of a."""
        return torch.tanh(a)

    def energy(self, z: Tensor) -> Tensor:
        """Negative entropy of a ±1 spin of mean z per sample, ∞ outside [-1, 1]."""
        inside = z.clamp(-1, 1)
        entropy = torch.special.xlog1py(1 + inside, inside) + torch.special.xlog1py(1 - inside, -inside)
        return _sum((0.5 * entropy).masked_fill(inside != z, math.inf))

    def conjugate(self, a: Tensor) -> Tensor:
        """Σ log cosh a per sample, without overflow."""
        return _sum(torch.logaddexp(a, -a) - math.log(2))


POTENTIALS: Registry[Potential] = Registry(
    "activation",
    {
        "linear": Box(),
        "relu": Box(low=0),
        "softmax": Softmax(),
        "hard-sigmoid": Box(0, 1),
        "hard-tanh": Box(-1, 1),
        "leaky-relu": LeakyReLU(),
        "sigmoid": Sigmoid(),
        "tanh": Tanh(),
    },
)
