"""Schedules: which layers are updated, in which order. They are data; the engine does the work.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, algorithms 1 and 2 and the variants of section 4.
"""

from __future__ import annotations

import json
import math
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from dualprop.arguments import Count, NotNegative, Seed, checked
from dualprop.engines.dyads._reach import learning_layers, updates_to_learn
from dualprop.errors import DualpropError
from dualprop.nets.wiring import Wiring
from dualprop.registry import Registry

MOST = 1_000_000  # updates, ticks or sweeps of one inference: more is a slip of the pen

_names = reprlib.Repr()
_names.maxother = _names.maxstring = 72  # letters of a schedule in a message: an order may be long


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
            >>> Random([2, 1, 3], seed=7).word
            'random:[2,1,3]:7'
        """
        names = [name for name, kind in SCHEDULES.items() if kind is type(self)]
        if not names:
            raise DualpropError(f"schedule={_names.repr(self)}: has no word, for its class is not in SCHEDULES")
        values = list(vars(self).items())
        while values[-1:] and values[-1][0] in ("tolerance", "damping") and not values[-1][1]:
            values.pop()  # they are 0 where nothing has to settle
        return ":".join([names[0], *(json.dumps(value, separators=(",", ":")) for _, value in values)])

    def plan(self, net: int | Wiring, generator: torch.Generator, done: int = 0) -> list[Update]:
        """The updates of one inference, checked.

        Args:
            net: L, for a chain, or the graph.
            generator: where random orders come from.
            done: updates that all states have seen since they were at zero.

        Raises:
            DualpropError: if an update names a layer that is not one of 1..L, or one of them twice.
        """
        wiring = _wiring(net)
        updates = list(islice(self.on(wiring, generator, done), MOST + 1))
        if len(updates) > MOST:
            raise DualpropError(f"schedule={_names.repr(self)}: more than {MOST:,} updates in one inference")
        for update in updates:
            if problem := _problem(update, wiring.depth):
                raise DualpropError(f"schedule={_names.repr(self)}: {problem}")
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
        wiring = _wiring(net)
        idle = set(range(1, wiring.depth + 1)) - self.learning(wiring, rounds, lazy)
        why = "a layer needs the nudge to come down to it, and activity to come up to the one below"
        if len(idle) == wiring.depth:
            raise DualpropError(
                f"schedule={_names.repr(self)}: none of the net's {wiring.depth} layers can learn: {why}"
            )
        found = [f"{_layers(idle, wiring)} cannot learn: {why}"] if idle else []
        draws = self.seldom(wiring, rounds, lazy)
        if draws.keys() - idle:
            seldom = _layers(draws.keys() - idle, wiring)
            found.append(f"{seldom} will hardly learn: draw {max(draws.values())} updates")
        if found:
            warnings.warn(f"schedule={_names.repr(self)}: {'; '.join(found)}", stacklevel=2)

    def learning(self, net: int | Wiring, rounds: int = 1, lazy: bool = False) -> set[int]:
        """The layers whose weights can get a gradient that is not zero, now or on a later batch.

        An order that is drawn anew for every inference may bring it to any of them.

        Args:
            net: L, for a chain, or the graph.
            rounds: inferences on a batch.
            lazy: whether states are kept from batch to batch.
        """
        wiring = _wiring(net)
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


def _wiring(net: int | Wiring) -> Wiring:
    return Wiring.chain(net) if isinstance(net, int) else net


def _problem(update: object, depth: int) -> str | None:
    """What is wrong with an update of a net of L = `depth` layers."""
    if not isinstance(update, tuple) or len(update) != 2 or not isinstance(update[0], Sequence):
        return f"yields {_names.repr(update)}, but it must be an Update(layers, nudged)"
    layers, nudged = update
    if not isinstance(nudged, bool):
        return f"nudged={_names.repr(nudged)} in an update, but it must be true or false"
    for k in layers:
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= depth:
            return f"names layer {_names.repr(k)}, but the net's layers are 1..{depth}"
    twice = next((k for k in layers if layers.count(k) > 1), None)
    return twice and f"names layer {twice} twice in one update"


Updates = Annotated[Count, Field(le=MOST)]
"""Updates, ticks or sweeps of one inference."""

Damping = Annotated[float, Field(ge=0, lt=1)]
"""λ, the part of the old state that an update keeps."""


class _Settling(Schedule):
    """One that may go on until nothing moves."""

    def __repr__(self) -> str:
        own = [
            (name, value) for name, value in vars(self).items() if value or name not in ("tolerance", "damping")
        ]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in own)})"


@checked
@dataclass(frozen=True, repr=False)
class Sweep(_Settling):
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

    n: Updates = 1
    tolerance: NotNegative = 0.0
    damping: Damping = 0.0

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """Up, the output layer, down; `n` times."""
        return self.on(Wiring.chain(depth), generator)

    def on(self, wiring: Wiring, generator: torch.Generator, done: int = 0) -> Iterator[Update]:
        """Up, down; `n` times."""
        for sweep in range(self.n):
            yield from _sweep(wiring, first=sweep == 0)

    def rounds(self, wiring: Wiring, generator: torch.Generator) -> Iterator[list[Update]]:
        """A round is a sweep."""
        for sweep in range(self.n):
            yield list(_sweep(wiring, first=sweep == 0))


def _sweep(wiring: Wiring, first: bool) -> Iterator[Update]:
    for k in range(1, wiring.depth + 1):
        if k not in wiring.ends:
            yield Update((k,), nudged=not (first and k in wiring.outputs))
    for k in range(wiring.depth, 0, -1):
        yield Update((k,))


@checked
@dataclass(frozen=True, repr=False)
class Parallel(_Settling):
    """`ticks` times all layers at once; the loss nudges layer L from tick L on, when activity has reached it.

    Activity goes up one layer a tick, and so the nudge goes down: layer k learns if there are 2L - k ticks.

    A lazy rule's ticks are counted on from batch to batch: activity has reached the output when every state of the
    batch has seen L - 1 ticks since it was at zero. From then on every tick is nudged, a batch's first one too. So
    one tick a sample is enough. Where a batch has more slots than any before, the new ones are at zero, and the
    batch waits for them.

    Args:
        ticks: number of ticks, at least 1; 2L - 1 by default, what it takes to go up and down once.
        tolerance: as of `Sweep`, by the change in a tick.
        damping: as of `Sweep`.
    """

    ticks: Updates | None = None
    tolerance: NotNegative = 0.0
    damping: Damping = 0.0

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All layers at every tick."""
        return self.updates_after(0, depth, generator)

    def updates_after(self, done: int, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All layers at every tick; nudged from the L-th on that the states have seen."""
        for tick in range(done + 1, done + (self.ticks or 2 * depth - 1) + 1):
            yield Update(tuple(range(1, depth + 1)), nudged=tick >= depth)

    def rounds(self, wiring: Wiring, generator: torch.Generator) -> Iterator[list[Update]]:
        """A round is a tick."""
        for update in self.on(wiring, generator):
            yield [update]

    def at_depth(self, depth: int) -> Parallel:
        """With its number of ticks."""
        return replace(self, ticks=self.ticks or 2 * depth - 1)


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
        wiring = _wiring(net)
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
        wiring = _wiring(net)
        if not isinstance(self.order, int) or lazy:
            return {}
        enough = {k: wiring.depth * (n + 1) for k, n in updates_to_learn(wiring).items()}
        return {k: math.ceil(draws / rounds) for k, draws in enough.items() if rounds * self.order < draws}


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
        values = [json.loads(word) for word in words]
    except ValueError:
        raise DualpropError(
            f"schedule={_names.repr(text)}: expected a word like sweep:2, parallel:7, random:100 or random:[2,1,3]"
        ) from None
    return kind(*values)
