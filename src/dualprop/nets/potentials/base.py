"""What every potential is: G, its conjugate G* and the activation f."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dualprop.nets.kernels.arena import room

Places = tuple[Tensor, Tensor]
"""Memory for a mean and a difference."""


class Potential(ABC):
    """A convex function G of the states of one layer, with its activation and its conjugate.

    `projects` says that G is ½‖z‖² on a convex set, so that f is the projection onto that set. Squared error
    then has an exact output step (see `dualprop.nets.losses.SquaredError`). `elementwise` says that every neuron's
    activation depends on its own drive alone, `holomorphic` that f takes complex drives and is differentiable
    there. Of a potential that is not `convex` only f is known: it has neither `energy` nor `conjugate`.

    Example:
        >>> import torch
        >>> from dualprop.nets.potentials import POTENTIALS
        >>> relu = POTENTIALS["relu"]
        >>> relu(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
        >>> relu.energy(torch.tensor([[0.0, 2.0]])), relu.conjugate(torch.tensor([[-1.0, 2.0]]))
        (tensor([2.]), tensor([2.]))
    """

    projects = False
    elementwise = False
    holomorphic = False
    convex = True
    draws = False
    """Whether a state may be read as another one each time (see `dualprop.devices`)."""

    @property
    def ideal(self) -> Potential:
        """This potential without the channels that its states leave by: itself, but on devices."""
        return self

    @property
    def minus(self) -> Potential:
        """That of the minus states of dyads, whose halves may be two devices: itself, but on these."""
        return self

    def leave(self, z: Tensor) -> Tensor:
        """What is read of a state z that the neurons are in: z itself, but on devices."""
        return z

    @abstractmethod
    def __call__(self, a: Tensor) -> Tensor:
        """The activation f(a) = argmin_z G(z) - z·a, of the shape of `a` (batch first)."""

    def over(self, a: Tensor) -> Tensor:
        """f(a), possibly written over a, which the caller gives up."""
        return self(a)

    def put(self, a: Tensor, out: Tensor) -> None:
        """f(a), written into `out`; there is no graph."""
        z = self.over(out.copy_(a))
        if z is not out:
            out.copy_(z)

    def fresh(self, a: Tensor) -> Tensor:
        """f(a), in memory that has served before where there is such; there is no graph."""
        out = room(a)
        if out is None:
            return self(a)
        self.put(a, out)
        return out

    def over_parts(self, re: Tensor, im: Tensor) -> None:
        """f of the complex drives re + i im, written over their parts. Of `holomorphic` potentials."""
        z = self(torch.complex(re, im))
        re.copy_(z.real)
        im.copy_(z.imag)

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and difference of the two states z^+ = f(a + up d) and z^- = f(a - down d).

        Args:
            a: the drive, shape (B, ...), in float32 at least unless `stable`.
            d: the feedback, of the same shape.
            up: α r_k, at least 0.
            down: ᾱ r_k, at least 0.
            share: that of z^+ in the mean.
            out: where the results may be put, for example over a and d; there is no graph then. They need not be.

        Returns:
            share z^+ + (1 - share) z^-, and z^+ - z^-.
        """
        first, second = out or (None, None)
        plus = self.over(torch.add(a, d, alpha=up))
        minus = self.minus.over(torch.sub(a, d, alpha=down, out=first))
        difference = torch.sub(plus, minus, out=second)
        return minus.lerp_(plus, share), difference

    def raised(self, a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """f(a + e), and f(a + e) - f(a), as exactly as `dyad` tells its difference."""
        return self.dyad(a, e, 1.0, 0.0, 1.0)

    def stable(self, up: float, down: float, share: float) -> bool:
        """Whether `dyad` loses nothing in low precision: it never subtracts numbers that are nearly equal."""
        return False

    def piece(self, z: Tensor) -> Tensor | None:
        """Which smooth piece of f every state is on, as a number of its shape; None where f has no kinks."""
        return None

    def module(self) -> nn.Module:
        """f as a PyTorch module: PyTorch's own, where it has one."""
        return Activation(self)

    @abstractmethod
    def energy(self, z: Tensor) -> Tensor:
        """G(z) per sample, shape (B,); infinite outside the domain of G."""

    @abstractmethod
    def conjugate(self, a: Tensor) -> Tensor:
        """G*(a) = max_z z·a - G(z) per sample, shape (B,)."""


class Activation(nn.Module):
    """The activation of a potential that PyTorch has no module for.

    Args:
        potential: whose f it is.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, a: Tensor) -> Tensor:
        """f(a)."""
        return self.potential(a)

    def extra_repr(self) -> str:
        """What `print` says of it."""
        return str(self.potential)


def total(elements: Tensor) -> Tensor:
    """Sum over everything but the batch."""
    return elements.reshape(len(elements), -1).sum(1)
