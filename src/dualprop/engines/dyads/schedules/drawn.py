"""One layer at a time, in an order that is drawn or given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dualprop.arguments import Seed, checked
from dualprop.engines.dyads._reach import updates_to_learn
from dualprop.engines.dyads.schedules.base import Schedule, Update, Updates, wired
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring


@checked
@dataclass(frozen=True)
class Random(Schedule):
    """One layer at a time, drawn uniformly from 1..L, or a given order.

    Fewer than 2L² drawn layers seldom come up through all of a chain and down again: a rule warns of it.

    Args:
        order: the number of updates (at least 1), or the layers themselves, for example [2, 1, 3].
        seed: of the generator that draws the layers. A rule draws on from batch to batch.

    Example:
        >>> [update.layers for update in Random([2, 1, 3]).updates(3, torch.Generator())]
        [(2,), (1,), (3,)]
    """

    order: Updates | Sequence[Updates] = 100
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not isinstance(self.order, int):
            object.__setattr__(self, "order", tuple(self.order))
            if not self.order:
                raise DualpropError("order=[]: must name at least one layer")

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """The drawn or the given layers, one at a time."""
        order = self.order
        if isinstance(order, int):
            order = torch.randint(1, depth + 1, (order,), generator=generator).tolist()
        for k in order:
            yield Update((k,))

    def learning(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> set[int]:
        """Of drawn orders those that some draw lets learn: L .. k, then k - 1, in turn."""
        wiring = wired(net)
        if not isinstance(self.order, int) or not wiring.is_chain:
            return super().learning(net, rounds, lazy)
        depth = wiring.depth
        updates = math.inf if lazy else rounds * self.order
        return {k for k in range(1, depth + 1) if depth - max(k - 2, 0) <= updates}

    def seldom(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> dict[int, int]:
        """The layers that too few updates are drawn for; arguments as of `Schedule.seldom`.

        Layer k of a chain learns once 1, .., L, .., k have been drawn in this order: 2L - k updates, each of which
        is drawn in one of L; on a graph see `updates_to_learn`. L (2L - k + 1) draws are as many on the average,
        and L to spare: of 2L² layer 1 learns on most batches, of half as many on few.
        """
        wiring = wired(net)
        if not isinstance(self.order, int) or lazy:
            return {}
        enough = {k: wiring.depth * (n + 1) for k, n in updates_to_learn(wiring).items()}
        return {k: math.ceil(draws / rounds) for k, draws in enough.items() if rounds * self.order < draws}
