"""States that are kept from batch to batch, by the slot of the batch that a sample has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.net import Layer


class Slots:
    """One state of every layer, as the last batch left it in each slot of the batch.

    Sample i starts from what the last batch of more than i samples left in slot i. A smaller batch uses the first
    slots and leaves the others; new slots start at zero.

    Args:
        layers: whose states these are, the first of them on the input.
        above: the layers that read the last of the states and keep none.

    Attributes:
        kept: a tensor for each layer, one row a slot; empty before the first batch.
    """

    def __init__(self, layers: Sequence[Layer], above: Sequence[Layer] = ()) -> None:
        self.layers, self.above = layers, above
        self.kept: list[Tensor] = []

    def start(self, x: Tensor) -> list[Tensor]:
        """The states that a batch starts from.

        Args:
            x: its inputs, shape (B, ...).

        Returns:
            The first B rows of every tensor in x's type, zeros where it has fewer; none before the first batch.

        Raises:
            DualpropError: if this input gives states of other shapes.
        """
        kept, shapes = [tuple(z.shape[1:]) for z in self.kept], [tuple(x.shape[1:])]
        for layer in self.layers if kept else ():
            shapes.append(layer.synapse.out_shape(shapes[-1]))
        if kept and kept != shapes[1:]:
            raise DualpropError(
                f"x: gives states of shapes {shapes[1:]}, but those kept from the batch before are {kept}"
            )
        return [_first_rows(z.to(x), len(x)) for z in self.kept]

    def keep(self, states: Sequence[Tensor]) -> None:
        """Remember these states, and those of slots that they do not use."""
        old = self.kept or states
        self.kept = [_overlay(before, now) for before, now in zip(old, states, strict=True)]

    def state_dict(self) -> list[Tensor]:
        """The kept states, which nobody changes in place."""
        return list(self.kept)

    def load_state_dict(self, states: Sequence[Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: naming the layer that it does not fit.
        """
        if not isinstance(states, list | tuple) or not all(isinstance(z, Tensor) for z in states):
            raise DualpropError("state: kept states must be a list of tensors")
        shapes = [tuple(z.shape[1:]) for z in states]
        if shapes and len(shapes) != len(self.layers):
            raise DualpropError(f"state: kept states of {len(shapes)} layers, but there are {len(self.layers)}")
        for k, (layer, below) in enumerate(zip([*self.layers[1:], *self.above], shapes, strict=False), 2):
            try:
                fits = layer.synapse.out_shape(below) in shapes[k - 1 : k] or k > len(shapes)
            except DualpropError:
                fits = False
            if not fits:
                raise DualpropError(f"state: kept states of shapes {shapes} do not fit layer {k} of the net")
        self.kept = list(states)


class Ages:
    """How many updates the states in each slot of the batch have seen since they were at zero.

    Attributes:
        kept: a number for each slot; empty before the first batch.

    Example:
        >>> ages = Ages()
        >>> ages.add(5, count=2)
        >>> ages.youngest(2), ages.youngest(3)
        (5, 0)
    """

    def __init__(self) -> None:
        self.kept: list[int] = []

    def youngest(self, count: int) -> int:
        """The fewest updates that a state in the first `count` slots has seen; 0 where there is a new one."""
        return min(self.kept[:count]) if len(self.kept) >= count else 0

    def add(self, updates: int, count: int) -> None:
        """So many updates more for the states in the first `count` slots."""
        new = count - len(self.kept)
        self.kept += [0] * new
        self.kept[:count] = [age + updates for age in self.kept[:count]]

    def state_dict(self) -> list[int]:
        """The numbers."""
        return list(self.kept)

    def load_state_dict(self, ages: Sequence[int]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: for anything but whole numbers.
        """
        if not isinstance(ages, list | tuple) or not all(type(age) is int and age >= 0 for age in ages):
            raise DualpropError("state: ages must be a list of whole numbers of at least 0")
        self.kept = list(ages)


def _overlay(base: Tensor, top: Tensor) -> Tensor:
    """The rows of `top`, followed by those of `base` beyond them."""
    return torch.cat([top, base[len(top) :].to(top)]) if len(base) > len(top) else top


def _first_rows(z: Tensor, count: int) -> Tensor:
    """The first `count` rows of `z`, zeros where it has fewer."""
    missing = count - len(z)
    return torch.cat([z, z.new_zeros(missing, *z.shape[1:])]) if missing > 0 else z[:count]
