"""States that are kept from batch to batch, by the slot of the batch that a sample has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.net import Net


class Slots:
    """One state of every layer, as the last batch left it in each slot of the batch.

    Sample i starts from what the last batch of more than i samples left in slot i. A smaller batch uses the first
    slots and leaves the others; new slots start at zero.

    Args:
        net: whose states these are.
        layers: the numbers of those that keep them, in order; all by default.

    Attributes:
        kept: a tensor for each layer, one row a slot; empty before the first batch.
    """

    def __init__(self, net: Net, layers: Sequence[int] | None = None) -> None:
        self.net, self.layers = net, range(1, len(net) + 1) if layers is None else layers
        self.kept: list[Tensor] = []

    def start(self, *x: Tensor) -> list[Tensor]:
        """The states that a batch starts from.

        Args:
            x: its inputs, each of shape (B, ...).

        Returns:
            The first B rows of every tensor in x's type, zeros where it has fewer; none before the first batch.

        Raises:
            DualpropError: if this input gives states of other shapes.
        """
        kept, shapes = [tuple(z.shape[1:]) for z in self.kept], []
        if kept:
            of_net = self.net.state_shapes([tuple(each.shape[1:]) for each in x])
            shapes = [of_net[k] for k in self.layers]
        if kept != shapes:
            raise DualpropError(
                f"x: gives states of shapes {shapes}, but those kept from the batch before are {kept}"
            )
        return [_first_rows(z.to(x[0]), len(x[0])) for z in self.kept]

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
        if not all(z.is_floating_point() for z in states):
            raise DualpropError(
                f"state: kept states of types {[str(z.dtype) for z in states]} are not real numbers"
            )
        if states and len(states) != len(self.layers):
            raise DualpropError(f"state: kept states of {len(states)} layers, but there are {len(self.layers)}")
        shapes = {k: tuple(z.shape[1:]) for k, z in zip(self.layers, states, strict=False)}
        for (source, target), synapse in zip(self.net.wiring.edges, self.net.synapses, strict=True):
            if source not in shapes or source >= target:
                continue
            try:
                made = synapse.out_shape(shapes[source])
            except DualpropError:
                made = None
            if made is None or shapes.get(target, made) != made:
                given = list(shapes.values())
                raise DualpropError(f"state: kept states of shapes {given} do not fit layer {target} of the net")
        self.kept = [z.clone() for z in states]


class Ages:
    """How many updates the states in each slot of the batch have linearised since they were at zero.

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
        """The fewest updates that a state in the first `count` slots has read; 0 where there is a new one."""
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
