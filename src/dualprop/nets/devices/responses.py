"""How far a pulse moves a weight, as a function of where the weight is.

References:
    Rasch et al., *A flexible and fast PyTorch toolkit for simulating training and inference on analog crossbar
    arrays*, AICAS 2021 (aihwkit).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualprop.arguments import NotNegative, Number, checked

Spread = Callable[[str], Tensor]
"""N(0, 1) for every device, by the name of what differs from one to the other."""

Sizes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From weights and the numbers of their devices to the sizes of a pulse up and of one down, by dw_min."""


class Response(ABC):
    """How the size of a pulse depends on the weight."""

    @abstractmethod
    def of(self, low: Tensor, high: Tensor, spread: Spread) -> Sizes:
        """That of some devices.

        Args:
            low: the least weight that each can hold.
            high: the largest.
            spread: what differs from device to device.
        """


@checked
@dataclass(frozen=True)
class Constant(Response):
    """The same everywhere between the bounds."""

    def of(self, low: Tensor, high: Tensor, spread: Spread) -> Sizes:
        """One."""
        return lambda w, at: (torch.ones_like(w), torch.ones_like(w))


@checked
@dataclass(frozen=True)
class Linear(Response):
    """1 - γ⁺ w / w_max up and 1 - γ⁻ w / w_min down.

    Args:
        gamma_up: γ⁺; 1 for soft bounds, where a pulse gets nowhere at the bound.
        gamma_down: γ⁻.
        gamma_up_dtod: its spread from device to device.
        gamma_down_dtod: likewise.
        own_bounds: whether the bounds are each device's own, else those of all on average.
        w_max: their mean.
        w_min: likewise, below 0.
    """

    gamma_up: Number = 1.0
    gamma_down: Number = 1.0
    gamma_up_dtod: NotNegative = 0.0
    gamma_down_dtod: NotNegative = 0.0
    own_bounds: bool = True
    w_max: Number = 1.0
    w_min: Number = -1.0

    def of(self, low: Tensor, high: Tensor, spread: Spread) -> Sizes:
        """Straight lines."""
        up = torch.abs(self.gamma_up + self.gamma_up_dtod * spread("gamma_up"))
        down = torch.abs(self.gamma_down + self.gamma_down_dtod * spread("gamma_down"))
        up = up / (high if self.own_bounds else self.w_max)
        down = down / (low if self.own_bounds else self.w_min)
        return lambda w, at: ((1 - up[at] * w).clamp_(min=0), (1 - down[at] * w).clamp_(min=0))


@checked
@dataclass(frozen=True)
class Exponential(Response):
    """max(0, 1 - A e^(±γ z)) with z = 2 a w / (w_max - w_min) + b.

    Args:
        a: slope of z.
        b: its offset.
        A_up: the factor of a pulse up.
        A_down: that of a pulse down.
        gamma_up: the exponent of a pulse up.
        gamma_down: that of a pulse down.
    """

    a: Number
    b: Number
    A_up: Number
    A_down: Number
    gamma_up: Number
    gamma_down: Number

    def of(self, low: Tensor, high: Tensor, spread: Spread) -> Sizes:
        """By the width of each device's range."""
        width = high - low

        def sizes(w: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
            z = 2 * self.a * w / width[at] + self.b
            up = 1 - self.A_up * torch.exp(self.gamma_up * z)
            down = 1 - self.A_down * torch.exp(-self.gamma_down * z)
            return up.clamp_(min=0), down.clamp_(min=0)

        return sizes
