"""Schedules: which layers are updated, in which order. They are data; the engine does the work.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, algorithms 1 and 2 and the variants of section 4.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from dualprop.arguments import Count, Seed, checked
from dualprop.errors import DualpropError
from dualprop.registry import Registry


class Update(NamedTuple):
    """Layers that are updated at once, all from the values before, and whether the loss nudges layer L."""

    layers: tuple[int, ...]
    nudged: bool = True


class Schedule(ABC):
    """An order of block updates for a net of L layers, numbered 1..L.

    `seed` is that of the generator which a rule keeps for random orders.
    """

    seed: int = 0

    @abstractmethod
    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """The updates of one inference.

        Args:
            depth: L.
            generator: where random orders come from; every rule has one of its own.
        """

    def check(self, depth: int) -> None:
        """Refuse a net that this schedule does not fit.

        Raises:
            DualpropError: if it names layers that a net of L = `depth` layers lacks.
        """

    def at_depth(self, depth: int) -> Schedule:
        """This schedule with whatever it derives from L = `depth` written out."""
        return self

    @property
    def word(self) -> str:
        """What `parse` makes this schedule from: its name and every value, for example "sweep:2".

        Raises:
            DualpropError: for a schedule whose class is not in `SCHEDULES`.

        Example:
            >>> Random([2, 1, 3], seed=7).word
            'random:[2,1,3]:7'
        """
        names = [name for name, kind in SCHEDULES.items() if kind is type(self)]
        if not names:
            raise DualpropError(f"schedule={self!r}: has no word, for its class is not in SCHEDULES")
        values = (json.dumps(value, separators=(",", ":")) for value in vars(self).values())
        return ":".join([names[0], *values])


Updates = Annotated[Count, Field(le=1_000_000)]
"""Updates, ticks or sweeps of one inference: more is a slip of the pen."""


@checked
@dataclass(frozen=True)
class Sweep(Schedule):
    """`n` times up k = 1..L-1, then L, then down k = L-1..1.

    From states at zero the first way up is the feed-forward pass, for there is no feedback yet.

    Args:
        n: number of sweeps, at least 1.

    Example:
        >>> [update.layers for update in Sweep().updates(3, torch.Generator())]
        [(1,), (2,), (3,), (2,), (1,)]
    """

    n: Updates = 1

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """Up, the output layer, down; `n` times."""
        for _ in range(self.n):
            for k in (*range(1, depth), *range(depth, 0, -1)):
                yield Update((k,))


@checked
@dataclass(frozen=True)
class Parallel(Schedule):
    """`ticks` times all layers at once; the loss nudges layer L from tick L on, when activity has reached it.

    Args:
        ticks: number of ticks, at least 1; 2L - 1 by default, what it takes to go up and down once.
    """

    ticks: Updates | None = None

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All layers at every tick."""
        for tick in range(1, (self.ticks or 2 * depth - 1) + 1):
            yield Update(tuple(range(1, depth + 1)), nudged=tick >= depth)

    def at_depth(self, depth: int) -> Parallel:
        """With its number of ticks."""
        return Parallel(self.ticks or 2 * depth - 1)


@checked
@dataclass(frozen=True)
class Random(Schedule):
    """One layer at a time, drawn uniformly from 1..L, or a given order.

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

    def check(self, depth: int) -> None:
        """Refuse an order that names a layer beyond L."""
        if not isinstance(self.order, int) and max(self.order) > depth:
            raise DualpropError(f"order: names layer {max(self.order)}, but the net's layers are 1..{depth}")


SCHEDULES: Registry[type[Schedule]] = Registry(
    "schedule", {"sweep": Sweep, "parallel": Parallel, "random": Random}
)


def parse(text: str) -> Schedule:
    """A schedule from a word: NAME, or NAME:N, for example "sweep:2", "random:100" or "random:[2,1,3]".

    Further values follow further colons, as in "random:100:7" with its seed; each is JSON.

    Raises:
        DualpropError: for an unknown name or a value that the schedule does not take.
    """
    name, *words = text.split(":")
    kind = SCHEDULES[name]
    try:
        return kind(*map(json.loads, words))
    except (json.JSONDecodeError, TypeError):
        raise DualpropError(
            f"schedule={text!r}: expected NAME or NAME:N with a whole number N, or random:[2,1,3] with layers"
        ) from None
