"""The linear layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from dualprop.nets.potentials.projection import HalfLine


@dataclass(frozen=True)
class Linear(HalfLine):
    """G(z) = ½‖z‖², f(a) = a."""

    low = -math.inf

    holomorphic = True

    def __call__(self, a: Tensor) -> Tensor:
        """The drive itself."""
        return a

    def over(self, a: Tensor) -> Tensor:
        """The drive itself."""
        return a

    def over_parts(self, re: Tensor, im: Tensor) -> None:
        """Nothing is to be done."""

    def fall(self, a: Tensor, nudge: Tensor) -> tuple[Tensor, Tensor]:
        """The drive and the nudge."""
        return a, nudge

    def raised(self, a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """The drive plus e, and e."""
        return a + e, e

    def module(self) -> nn.Module:
        """`torch.nn.Identity`."""
        return nn.Identity()
