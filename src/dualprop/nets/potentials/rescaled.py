"""A potential with another slope and centre."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from dualprop.arguments import Number, Positive, checked
from dualprop.nets.potentials.base import Places, Potential, total


@checked
@dataclass(frozen=True)
class Rescaled(Potential):
    """f(a) = f_0(slope (a - centre)), G(z) = G_0(z)/slope + centre Σz, G*(a) = G*_0(slope (a - centre))/slope.

    The sigmoid 1 / (1 + e^(-4a + 2)) of published equilibrium propagation is one, and clip(a/2, 0, 1).

    Args:
        base: f_0 with G_0 and G*_0.
        slope: positive.
        centre: the drive that takes the place of zero.

    Raises:
        DualpropError: for another slope or centre.

    Example:
        >>> import torch
        >>> from dualprop.nets.potentials import Clip
        >>> Rescaled(Clip(0, 1), slope=0.5)(torch.tensor([[-1.0, 1.0, 3.0]]))
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    base: Potential
    slope: Positive = 1.0
    centre: Number = 0.0

    def __post_init__(self) -> None:
        for name in ("elementwise", "holomorphic", "convex"):
            object.__setattr__(self, name, getattr(self.base, name))

    def __call__(self, a: Tensor) -> Tensor:
        """f_0(slope (a - centre))."""
        return self.base(self.inner(a))

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a."""
        return self.base.over(self.inner(a, out=a))

    @override
    def over_parts(self, re: Tensor, im: Tensor) -> None:
        self.base.over_parts(self.inner(re, out=re), im.mul_(self.slope))

    @override
    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        first, second = out or (None, None)
        inner = self.inner(a, out=first)
        places = (inner, torch.empty_like(d) if second is None else second)
        return self.base.dyad(inner, d, self.slope * up, self.slope * down, share, places)

    @override
    def piece(self, z: Tensor) -> Tensor | None:
        return self.base.piece(z)

    def module(self) -> nn.Module:
        """The shift of the drive, then the module of the base."""
        return nn.Sequential(Shift(self), self.base.module())

    def energy(self, z: Tensor) -> Tensor:
        """G_0(z)/slope + centre Σz per sample."""
        return self.base.energy(z) / self.slope + self.centre * total(z)

    def conjugate(self, a: Tensor) -> Tensor:
        """G*_0(slope (a - centre))/slope per sample."""
        return self.base.conjugate(self.inner(a)) / self.slope

    def inner(self, a: Tensor, out: Tensor | None = None) -> Tensor:
        """Slope (a - centre), in one pass over a."""
        if not self.centre:
            return torch.mul(a, self.slope, out=out)
        return torch.add(torch.tensor(-self.slope * self.centre, dtype=a.dtype), a, alpha=self.slope, out=out)


class Shift(nn.Module):
    """What a rescaled potential makes of the drive before its base does.

    Args:
        potential: whose slope and centre they are.
    """

    def __init__(self, potential: Rescaled) -> None:
        super().__init__()
        self.slope, self.centre = potential.slope, potential.centre
        self._shifted = potential.inner

    def forward(self, a: Tensor) -> Tensor:
        """Slope (a - centre)."""
        return self._shifted(a)

    def extra_repr(self) -> str:
        """What `print` says of it."""
        return f"slope={self.slope:g}, centre={self.centre:g}"
