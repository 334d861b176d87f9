"""The rectified linear unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from dualprop.nets.kernels.relu import fall
from dualprop.nets.potentials.projection import HalfLine


@dataclass(frozen=True)
class ReLU(HalfLine):
    """G(z) = ½‖z‖² on z >= 0, f(a) = max(a, 0)."""

    low = 0.0

    def __call__(self, a: Tensor) -> Tensor:
        """The larger of a and 0."""
        return torch.relu(a)

    def over(self, a: Tensor) -> Tensor:
        """f(a), written over a."""
        return a.relu_()

    @override
    def put(self, a: Tensor, out: Tensor) -> None:
        torch.clamp_min(a, 0, out=out)

    @override
    def fall(self, a: Tensor, nudge: Tensor) -> tuple[Tensor, Tensor]:
        return fall(a, nudge, out=nudge)

    def module(self) -> nn.Module:
        """`torch.nn.ReLU`."""
        return nn.ReLU()
