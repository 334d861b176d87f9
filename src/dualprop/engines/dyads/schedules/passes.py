"""Passes through the layers, over and over: up and down, up alone, every other layer, or an order of one's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dualprop.arguments import NotNegative, checked
from dualprop.engines.dyads.schedules.base import Damping, Settling, Update, Updates
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring


class Passes(Settling):
    """`n` times a pass; a kind of one's own gives `one`.

    Attributes:
        n: number of passes.
    """

    n: int = 1

    @abstractmethod
    def one(self, wiring: Wiring, first: bool) -> Iterator[Update]:
        """The updates of a pass.

        Args:
            wiring: the graph.
            first: whether it is the first of an inference.
        """

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All passes on a chain of L = `depth` layers."""
        return self.on(Wiring.chain(depth), generator)

    def on(self, wiring: Wiring, generator: torch.Generator, done: int = 0) -> Iterator[Update]:
        """All passes."""
        for number in range(self.n):
            yield from self.one(wiring, number == 0)

    def rounds(self, wiring: Wiring, generator: torch.Generator) -> Iterator[list[Update]]:
        """A round is a pass."""
        for number in range(self.n):
            yield list(self.one(wiring, number == 0))


@checked
@dataclass(frozen=True, repr=False)
class _Times(Passes):
    n: Updates = 1
    tolerance: NotNegative = 0.0
    damping: Damping = 0.0


class Sweep(_Times):
    """`n` times up k = 1..L-1, then L, then down k = L-1..1.

    From states at zero the first way up is the feed-forward pass, for there is no feedback yet. On a graph the way
    up leaves out the outputs that no edge leads up from, and on the first one no loss acts; the way down takes all
    layers, outputs nudged.

    Args:
        n: number of sweeps, at least 1.
        tolerance: inference ends once the largest relative change ‖Δz‖/‖z‖ of a layer's states in a sweep is not
            above it; if it still grows at the last, that is an error. 0 for all `n` sweeps, settled or not.
        damping: λ in [0, 1): z ← (1 - λ) new + λ old, for both states.

    Example:
        >>> [update.layers for update in Sweep().updates(3, torch.Generator())]
        [(1,), (2,), (3,), (2,), (1,)]
    """

    def one(self, wiring: Wiring, first: bool) -> Iterator[Update]:
        """Up, down."""
        for k in range(1, wiring.depth + 1):
            if k not in wiring.ends:
                yield Update((k,), nudged=not (first and k in wiring.outputs))
        yield from _down(wiring)


class Forward(_Times):
    """`n` times up k = 1..L, the loss acting on layer L: a nudge comes down one layer a pass.

    From states at zero the first way up is the feed-forward pass until the loss nudges layer L; layer k learns if
    there are L - k + 1 passes. On a graph the loss of an output that an edge leads up from does not act yet on the
    first. Arguments as of `Sweep`.

    Example:
        >>> [update.layers for update in Forward(2).updates(3, torch.Generator())]
        [(1,), (2,), (3,), (1,), (2,), (3,)]
    """

    def one(self, wiring: Wiring, first: bool) -> Iterator[Update]:
        """Up."""
        for k in range(1, wiring.depth + 1):
            yield Update((k,), nudged=not first or k in wiring.ends)


class _FromFeedForward(_Times):
    """One that begins with a way up on which no loss acts: from states at zero, the feed-forward pass."""

    def one(self, wiring: Wiring, first: bool) -> Iterator[Update]:
        """The first time up, then what comes again and again."""
        for k in range(1, wiring.depth + 1) if first else ():
            yield Update((k,), nudged=False)
        yield from self.again(wiring)

    @abstractmethod
    def again(self, wiring: Wiring) -> Iterator[Update]:
        """The pass."""


class Backward(_FromFeedForward):
    """Up once without the loss, then `n` times down k = L..1; once is `Sweep()`. Arguments as of `Sweep`.

    Example:
        >>> [update.layers for update in Backward().updates(2, torch.Generator())]
        [(1,), (2,), (2,), (1,)]
    """

    def again(self, wiring: Wiring) -> Iterator[Update]:
        """Down."""
        return _down(wiring)


class EvenOdd(_FromFeedForward):
    """Up once without the loss, then `n` times the even layers at once, then the odd ones.

    Arguments as of `Sweep`.

    Example:
        >>> [update.layers for update in EvenOdd().updates(3, torch.Generator())]
        [(1,), (2,), (3,), (2,), (1, 3)]
    """

    def again(self, wiring: Wiring) -> Iterator[Update]:
        """Even, odd."""
        return _every_other(wiring, 2, 1)


class OddEven(_FromFeedForward):
    """Up once without the loss, then `n` times the odd layers at once, then the even ones.

    Arguments as of `Sweep`.

    Example:
        >>> [update.layers for update in OddEven().updates(3, torch.Generator())]
        [(1,), (2,), (3,), (1, 3), (2,)]
    """

    def again(self, wiring: Wiring) -> Iterator[Update]:
        """Odd, even."""
        return _every_other(wiring, 1, 2)


@checked
@dataclass(frozen=True, repr=False)
class Order(Passes):
    """`n` times the layers in an order of one's own, from states at zero, outputs nudged.

    Args:
        order: layers, or lists of layers that are updated at once, for example [2, [1, 3]].
        n: number of passes, at least 1.
        tolerance: as of `Sweep`.
        damping: as of `Sweep`.

    Example:
        >>> [update.layers for update in Order([2, [1, 3]]).updates(3, torch.Generator())]
        [(2,), (1, 3)]
    """

    order: Sequence[Updates | Sequence[Updates]]
    n: Updates = 1
    tolerance: NotNegative = 0.0
    damping: Damping = 0.0

    def __post_init__(self) -> None:
        items = (item if isinstance(item, int) else tuple(item) for item in self.order)
        object.__setattr__(self, "order", tuple(items))
        if not self.order:
            raise DualpropError("order=[]: must name at least one layer")

    def one(self, wiring: Wiring, first: bool) -> Iterator[Update]:
        """The order."""
        for item in self.order:
            yield Update((item,) if isinstance(item, int) else tuple(item))


def _down(wiring: Wiring) -> Iterator[Update]:
    for k in range(wiring.depth, 0, -1):
        yield Update((k,))


def _every_other(wiring: Wiring, *starts: int) -> Iterator[Update]:
    """From each of these layers every other one, at once."""
    for start in starts:
        if layers := tuple(range(start, wiring.depth + 1, 2)):
            yield Update(layers)
