"""States that are kept from batch to batch, by the slot of the batch that a sample has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.net import Layer


class Slots:
    """What the last batch left in each slot of the batch, for several tensors with one row a slot.

    Sample i starts from what the last batch of more than i samples left in slot i. A smaller batch uses the first
    slots and leaves the others; new slots start at zero.

    Attributes:
        kept: the tensors, one row a slot; empty before the first batch.
    """

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def start(self, x: Tensor) -> list[Tensor]:
        """The first len(x) rows of every tensor in x's type, zeros where it has fewer; none at first."""
        return [_first_rows(z.to(x), len(x)) for z in self.kept]

    def keep(self, states: Sequence[Tensor]) -> None:
        """Remember these states, and those of slots that they do not use."""
        old = self.kept or states
        self.kept = [_overlay(before, now) for before, now in zip(old, states, strict=True)]


def check_states(states: Sequence[Tensor], layers: Sequence[Layer], above: Sequence[Layer] = ()) -> None:
    """Refuse kept states that are not those of these layers, the first of them on the input.

    Args:
        states: one tensor for each layer, one row a slot.
        layers: the layers.
        above: those that read the last of the states and keep none.

    Raises:
        DualpropError: naming the layer that they do not fit.
    """
    shapes = [tuple(z.shape[1:]) for z in states]
    if len(shapes) != len(layers):
        raise DualpropError(f"state: kept states of {len(shapes)} layers, but there are {len(layers)}")
    for k, (layer, below) in enumerate(zip([*layers[1:], *above], shapes, strict=False), 2):
        try:
            fits = layer.synapse.out_shape(below) in shapes[k - 1 : k] or k > len(shapes)
        except DualpropError:
            fits = False
        if not fits:
            raise DualpropError(f"state: kept states of shapes {shapes} do not fit layer {k} of the net")


def _overlay(base: Tensor, top: Tensor) -> Tensor:
    """The rows of `top`, followed by those of `base` beyond them."""
    return torch.cat([top, base[len(top) :].to(top)]) if len(base) > len(top) else top


def _first_rows(z: Tensor, count: int) -> Tensor:
    """The first `count` rows of `z`, zeros where it has fewer."""
    missing = count - len(z)
    return torch.cat([z, z.new_zeros(missing, *z.shape[1:])]) if missing > 0 else z[:count]
