"""A picture as it is seen while it is held: still, or walking at random and turning, slowly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

SHIFT, TURN = 3, 15.0
"""How far a drifting image goes: pixels and degrees."""


def still(x: Tensor, ticks: int) -> Iterator[Tensor]:
    """The same image at every tick."""
    for _ in range(ticks):
        yield x


def drifting(x: Tensor, ticks: int, seed: int) -> Iterator[Tensor]:
    """An image that begins where it is and walks from there.

    Args:
        x: shape (C, H, W).
        ticks: how many views.
        seed: of its walk.
    """
    generator, place = torch.Generator().manual_seed(seed), torch.zeros(3)
    end = torch.tensor([SHIFT, SHIFT, TURN])
    for _ in range(ticks):
        yield moved(x, *place.tolist())
        step = torch.randint(-1, 2, (3,), generator=generator) * torch.tensor([1.0, 1.0, TURN / 5])
        place = (place + step).clamp(-end, end)


def moved(x: Tensor, right: float, down: float, degrees: float) -> Tensor:
    """An image that has gone some pixels and turned, zeros coming in."""
    turn = math.radians(degrees)
    height, width = x.shape[1:]
    theta = torch.tensor(
        [
            [math.cos(turn), -math.sin(turn), 2 * right / width],
            [math.sin(turn), math.cos(turn), 2 * down / height],
        ]
    )
    grid = functional.affine_grid(theta[None], [1, *x.shape], align_corners=False)
    return functional.grid_sample(x[None], grid, align_corners=False)[0]
