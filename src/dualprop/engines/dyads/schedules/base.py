"""What a schedule is: which layers are updated, in which order."""

from __future__ import annotations

import json
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from dualprop.arguments import Count
from dualprop.engines.dyads._reach import learning_layers
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring
from dualprop.registry import Registry

MOST = 1_000_000  # updates, ticks or sweeps of one inference: more is a slip of the pen

SCHEDULES: Registry[type[Schedule]] = Registry("schedule")
"""Schedules by the first part of their words."""

names = reprlib.Repr()
names.maxother = names.maxstring = 72  # letters of a schedule in a message: an order may be long


class Update(NamedTuple):
    """Layers that are updated at once, all from the values before, and whether the loss nudges layer L."""

    layers: tuple[int, ...]
    nudged: bool = True


class Schedule(ABC):
    """An order of block updates for a net of L layers, numbered 1..L.

    One's own gives `updates`. They may depend on L and on what the generator draws, and on nothing else.

    `seed` is that of the generator which a rule keeps for random orders. `tolerance` and `damping` are for nets
    that settle: inference ends early once no state moves by more than the tolerance, and an update keeps a part
    `damping` of the old state.

    Example:
        >>> class TopDown(Schedule):
        ...     def updates(self, depth, generator):
        ...         for k in range(depth, 0, -1):
        ...             yield Update((k,))
        >>> [update.layers for update in TopDown().plan(3, torch.Generator())]
        [(3,), (2,), (1,)]
    """

    seed: int = 0
    tolerance: float = 0.0
    damping: float = 0.0

    @abstractmethod
    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """The updates of one inference that starts from states at zero.

        Args:
            depth: L.
            generator: where random orders come from; every rule has one of its own.
        """

    def updates_after(self, done: int, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """The updates of one inference of a lazy rule: the same, unless a schedule knows better.

        Args:
            done: updates that all of its states have seen since they were at zero.
            depth: L.
            generator: where random orders come from.
        """
        return self.updates(depth, generator)

    def on(self, wiring: Wiring, generator: torch.Generator, done: int = 0) -> Iterator[Update]:
        """The updates of one inference on a graph: those on a chain of as many layers, unless it knows better.

        Args:
            wiring: the graph.
            generator: where random orders come from.
            done: updates that all states have seen since they were at zero.
        """
        return self.updates_after(done, wiring.depth, generator) if done else self.updates(wiring.depth, generator)

    def rounds(self, wiring: Wiring, generator: torch.Generator) -> Iterator[list[Update]]:
        """The updates of one inference in the parts after which `tolerance` is looked at: here all at once."""
        yield self.plan(wiring, generator)

    def check(self, depth: int) -> None:
        """Refuse a net of L = `depth` layers that this schedule does not fit, where `plan` would not find it."""

    def at_depth(self, depth: int) -> Schedule:
        """This schedule with whatever it derives from L = `depth` written out."""
        return self

    @property
    def word(self) -> str:
        """What `parse` makes this schedule from: its name and every value, for example "sweep:2".

        Raises:
            DualpropError: for a schedule whose class is not in `SCHEDULES`.

        Example:
            >>> import dualprop as dp
        >>> dp.Random([2, 1, 3], seed=7).word
            'random:[2,1,3]:7'
        """
        known = [name for name, kind in SCHEDULES.items() if kind is type(self)]
        if not known:
            raise DualpropError(f"schedule={names.repr(self)}: has no word, for its class is not in SCHEDULES")
        values = list(vars(self).items())
        while values[-1:] and values[-1][0] in ("tolerance", "damping") and not values[-1][1]:
            values.pop()  # they are 0 where nothing has to settle
        return ":".join([known[0], *(json.dumps(value, separators=(",", ":")) for _, value in values)])

    def plan(self, net: int | Wiring, generator: torch.Generator, done: int = 0) -> list[Update]:
        """The updates of one inference, checked.

        Args:
            net: L, for a chain, or the graph.
            generator: where random orders come from.
            done: updates that all states have seen since they were at zero.

        Raises:
            DualpropError: if an update names a layer that is not one of 1..L, or one of them twice.
        """
        wiring = wired(net)
        updates = list(islice(self.on(wiring, generator, done), MOST + 1))
        if len(updates) > MOST:
            raise DualpropError(f"schedule={names.repr(self)}: more than {MOST:,} updates in one inference")
        for update in updates:
            if problem := _problem(update, wiring.depth):
                raise DualpropError(f"schedule={names.repr(self)}: {problem}")
        return updates

    def fit(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> None:
        """Refuse a net on which nothing could learn in this order, and warn of layers that cannot.

        Args:
            net: L, for a chain, or the graph.
            rounds: inferences on a batch, each from the states that the one before left.
            lazy: whether states are kept from batch to batch as well.

        Raises:
            DualpropError: if no layer can learn, or the schedule does not fit the net.
        """
        wiring = wired(net)
        idle = set(range(1, wiring.depth + 1)) - self.learning(wiring, rounds, lazy)
        why = "a layer needs the nudge to come down to it, and activity to come up to the one below"
        if len(idle) == wiring.depth:
            raise DualpropError(
                f"schedule={names.repr(self)}: none of the net's {wiring.depth} layers can learn: {why}"
            )
        found = [f"{_layers(idle, wiring)} cannot learn: {why}"] if idle else []
        draws = self.seldom(wiring, rounds, lazy)
        if draws.keys() - idle:
            seldom = _layers(draws.keys() - idle, wiring)
            found.append(f"{seldom} will hardly learn: draw {max(draws.values())} updates")
        if found:
            warnings.warn(f"schedule={names.repr(self)}: {'; '.join(found)}", stacklevel=2)

    def learning(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> set[int]:
        """The layers whose weights can get a gradient that is not zero, now or on a later batch.

        An order that is drawn anew for every inference may bring it to any of them.

        Args:
            net: L, for a chain, or the graph.
            rounds: inferences on a batch.
            lazy: whether states are kept from batch to batch.
        """
        wiring = wired(net)
        depth = wiring.depth
        generator = torch.Generator().manual_seed(self.seed)
        before, done, plans = generator.get_state(), 0, []
        # after so many every flag has come as far as it can: L for the activity, L for the nudge
        for _ in range(2 * depth if lazy else min(rounds, 2 * depth)):
            plans.append(self.plan(wiring, generator, done))
            done += len(plans[-1]) if lazy else 0
        drawn = not torch.equal(before, generator.get_state())
        return set(range(1, depth + 1)) if drawn else learning_layers(plans, wiring)

    def seldom(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> dict[int, int]:
        """The layers that will hardly learn, and how many updates of an inference would do: here none.

        Args:
            net: L, for a chain, or the graph.
            rounds: inferences on a batch.
            lazy: whether states are kept from batch to batch.
        """
        return {}


def _layers(numbers: Collection[int], wiring: Wiring) -> str:
    """Some of a net's layers in words, in a graph with their names."""
    names = [f"{k}" if wiring.is_chain else f"{k} ({wiring.name(k)})" for k in sorted(numbers)]
    return f"layer{'s' * (len(names) > 1)} {', '.join(names)} of {wiring.depth}"


def wired(net: int | Wiring) -> Wiring:
    """The graph, of a number of layers the chain."""
    return Wiring.chain(net) if isinstance(net, int) else net


def _problem(update: object, depth: int) -> str | None:
    """What is wrong with an update of a net of L = `depth` layers."""
    if not isinstance(update, tuple) or len(update) != 2 or not isinstance(update[0], Sequence):
        return f"yields {names.repr(update)}, but it must be an Update(layers, nudged)"
    layers, nudged = update
    if not isinstance(nudged, bool):
        return f"nudged={names.repr(nudged)} in an update, but it must be true or false"
    for k in layers:
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= depth:
            return f"names layer {names.repr(k)}, but the net's layers are 1..{depth}"
    twice = next((k for k in layers if layers.count(k) > 1), None)
    return twice and f"names layer {twice} twice in one update"


Updates = Annotated[Count, Field(le=MOST)]
"""Updates, ticks or sweeps of one inference."""

Damping = Annotated[float, Field(ge=0, lt=1)]
"""λ, the part of the old state that an update keeps."""


class Settling(Schedule):
    """One that may go on until nothing moves."""

    def __repr__(self) -> str:
        own = [
            (name, value) for name, value in vars(self).items() if value or name not in ("tolerance", "damping")
        ]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in own)})"
