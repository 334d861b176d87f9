"""Noise from a generator: the one place where it is drawn, for channels and for rules that are made of noise."""

from __future__ import annotations

import torch
from torch import Tensor

from dualprop.nets.synapses import layout


class Draws:
    """σ N(0, 1) and uniform numbers like a tensor, in float32 whatever its precision, so that all see the same.

    Args:
        generator: where they come from; they are drawn on its device.
        sigma: σ.
        in_memory: whether numbers are drawn in the order in which z lies in memory: where channels come last ten
            times as fast, and others than where they come first.

    Example:
        >>> draws = Draws(torch.Generator().manual_seed(0), sigma=0.1)
        >>> draws.like(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, generator: torch.Generator, sigma: float = 1.0, *, in_memory: bool = False) -> None:
        self.generator, self.sigma, self.in_memory = generator, sigma, in_memory

    def like(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """σ N(0, 1) of the shape, layout and device of z, in its type or another."""
        drawn, last = self._room(z)
        return _laid(drawn.normal_(0, self.sigma, generator=self.generator), z, dtype, last)

    def uniform(self, z: Tensor) -> Tensor:
        """Uniform in [0, 1)."""
        drawn, last = self._room(z)
        return _laid(drawn.uniform_(generator=self.generator), z, None, last)

    def _room(self, z: Tensor) -> tuple[Tensor, bool]:
        last = self.in_memory and layout(z) == torch.channels_last
        shape = z.permute(0, 2, 3, 1).shape if last else z.shape
        return torch.empty(shape, device=self.generator.device), last


def _laid(drawn: Tensor, z: Tensor, dtype: torch.dtype | None, last: bool) -> Tensor:
    drawn = drawn.to(z.device, dtype or z.dtype)
    return drawn.permute(0, 3, 1, 2) if last else drawn
