"""Inference on one batch: the dyadic states of all layers, and what the edges learn from them.

What is computed, kept, freed and learnt when is the program's alone; `binding.py` makes calls of its instructions.
No autograd graph is made that spans two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from torch import Tensor

from dualprop.engines.dyads import states
from dualprop.engines.dyads.binding import Binding, Bound
from dualprop.engines.dyads.blocks import Batch, Blocks, Task
from dualprop.engines.dyads.fixed import Fixed, Memories
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Planner
from dualprop.engines.dyads.program import Register, every_register
from dualprop.engines.dyads.schedules import Update
from dualprop.engines.dyads.settling import Settling
from dualprop.engines.dyads.states import DyadicState, Lasting, Nudge, dyad
from dualprop.engines.states import ByLayer
from dualprop.nets import crossing
from dualprop.nets.counting import listeners
from dualprop.nets.kernels.arena import converted
from dualprop.nets.net import Net, zeros
from dualprop.nets.synapses import Synapse, frozen_weights

Names = frozenset[str]
"""Of registers of layers."""

STATES = Names({"states", "mean", "difference"})
"""What is kept to be looked at."""

LASTING = Names({"mean", "difference"})
"""What is kept to start from."""

NOTHING = Names()


class Inference:
    """Dyadic states of all layers for one batch, with the weights as they are, and what the edges learn from them.

    It serves batch after batch: `begin`, then `run` or `settle`, then `outputs` and `state`, then `end`.

    Args:
        net: whose layers are updated.
        nudge: how states are nudged and averaged.
        damping: λ in [0, 1), the part of the old states that an update keeps, z ← (1 - λ) new + λ old.
        dyad: how mean and difference are computed: `states.dyad`, or that compiled.
        blocks: how layers are updated.

    Attributes:
        neurons: the layers and inputs by their numbers.
        products: how many have been made for this batch, without those that edges make to learn.
        updates: how many the schedule has asked for.
    """

    def __init__(
        self,
        net: Net,
        nudge: Nudge,
        *,
        damping: float = 0.0,
        dyad: Callable[..., tuple[Tensor, Tensor]] = dyad,
        blocks: type[Blocks] = Blocks,
    ) -> None:
        self.net, self.wiring, self.nudge = net, net.wiring, nudge
        self._synapses, self._potentials = net.synapses, [layer.potential for layer in net.stack]
        self.neurons = {k: Neurons(k, self._potentials[k - 1] if k > 0 else None) for k in net.wiring.out_of}
        self.links = [self._link(e, synapse) for e, synapse in enumerate(self._synapses)]
        self._linear = [link.synapse.linear for link in self.links]
        self._blocks = blocks(net.wiring, nudge, damping, dyad)
        self._damped = damping > 0 or blocks.damped
        self._blocks.zeros = self._zeros
        self._binding = Binding(net.wiring, self.neurons, self.links, self._blocks, damped=self._damped)
        self._every = every_register(net.wiring)
        self._forget = self._binding.freeing(self._every)
        self._planned = lru_cache(maxsize=64)(self._plan)
        self._compiled = dyad is not states.dyad
        self._memories = Memories(net, nudge)
        self._start: Lasting = ()
        self._none = (False,) * (net.wiring.depth + 1)
        self._entered = False
        self._fixed: Fixed | None = None
        self.products = self.updates = 0

    def _link(self, e: int, synapse: Synapse) -> Link:
        source, target = self.wiring.edges[e]
        below, above = self.neurons[source], self.neurons[target]
        link = Link(synapse, below, above, self.nudge.weight(self.wiring, source, target))
        below.out.append(link)
        above.into.append(link)
        return link

    @property
    def fits(self) -> bool:
        """Whether the net has the synapses and potentials that it had."""
        net = self.net
        return net.synapses == self._synapses and [layer.potential for layer in net.stack] == self._potentials

    def begin(
        self, inputs: Sequence[Tensor], tasks: Mapping[int, Task], start: Lasting | None = None
    ) -> Inference:
        """A batch.

        Args:
            inputs: one for each input of the net, shape (B, ...).
            tasks: what each output layer is to learn, by its number.
            start: what another inference has left; states start at zero if there is nothing.

        Returns:
            Itself.
        """
        self._blocks.begin(Batch(inputs, tasks))
        self._start = start or ()
        self.products = self.updates = 0
        return self

    def _enter(self) -> None:
        """Give layers and inputs what the batch begins with."""
        if self._entered:
            return
        batch, self._entered, self._fixed = self._blocks.batch, True, None
        for number, x in enumerate(batch.inputs):
            neurons = self.neurons[-number]
            neurons.mean, neurons.states = x.to(batch.low), (x, x)
        for k, (mean, difference) in enumerate(self._start, 1):
            neurons = self.neurons[k]
            neurons.mean = converted(mean, batch.low)
            neurons.difference = None if difference is None else converted(difference, batch.low)

    def _different(self) -> tuple[bool, ...]:
        """Which of the input and the layers have a difference."""
        if self._entered:
            return tuple([self.neurons[k].difference is not None for k in range(self.wiring.depth + 1)])
        return (False, *[d is not None for _, d in self._start]) if self._start else self._none

    def end(self) -> None:
        """Forget the batch."""
        if self._entered:
            self._forget()
            self._entered = False
        self._start = ()
        self._blocks.end()

    def run(self, updates: Iterable[Update], *, learn: bool, keep: Names) -> None:
        """Update the blocks that a schedule names, in its order.

        Args:
            updates: which layers next, and whether the losses nudge the outputs.
            learn: whether each layer's edges add the batch mean of (1/β_k) (z_k^- - z_k^+) z̄_j^T to `.grad` as
                soon as all their ends have made their last update.
            keep: what is read of the layers afterwards: `STATES` for `state`, `LASTING` for `lasting`, or
                `NOTHING`. z^+ and z^- are computed only where somebody will look at them: mean and difference are
                all that learning needs.
        """
        updates = tuple(updates)
        self.updates += len(updates)
        bound = self._planned(updates, self._different(), learn, keep)
        self._fixed = None if self._entered or "states" in keep else self._bound_to_memory(bound)
        if self._fixed is None:
            self._follow(bound)
        else:
            self._fixed.run(self._blocks.batch, self._start)
            self.products += bound.products or 0

    def settle(
        self, rounds: Iterable[Sequence[Update]], tolerance: float, *, learn: bool, keep: Names
    ) -> tuple[int, float]:
        """Update in rounds until no state moves by more than the tolerance in one, or all are done.

        Args:
            rounds: the updates of each.
            tolerance: the largest relative change ‖Δz‖/‖z‖ of a layer's states, over the batch, that ends it.
            learn: whether all edges learn in the end.
            keep: what is read of the layers afterwards.

        Returns:
            How many rounds there were, and the residual: the largest change in the last of them.

        Raises:
            DivergenceError: if a state is not finite, or the residual still grows after the last round.
        """
        self._enter()
        planner, settling = self._planner(), Settling(tolerance, self._blocks.batch.low)
        for updates in rounds:
            before = self._pairs()
            self.updates += len(updates)
            self._follow(self._binding.again(planner.plan(updates), self._every))
            settling.see(before, self._pairs())
            if settling.settled:
                break
        settling.check_growth()
        if learn:
            kept = self._kept(keep)
            bound = self._binding.again(planner.plan((), learn=True), kept)
            self._binding.freeing(self._every - bound.needs - kept)()
            self._follow(bound)
        return settling.rounds, settling.residual

    @property
    def outputs(self) -> list[Tensor]:
        """f(a) at the last update of each output layer: what the net said before a loss nudged it."""
        if self._fixed is not None:
            return self._fixed.outputs()
        return [self.neurons[k].said for k in self.wiring.outputs]

    def state(self) -> DyadicState:
        """The states as they are now, in full precision, if `STATES` were kept."""
        pairs = {k: self._blocks.pair(n) for k, n in self.neurons.items()}
        plus, minus = (ByLayer.of(self.wiring, {k: pair[i] for k, pair in pairs.items()}) for i in (0, 1))
        return DyadicState(plus, minus, nudge=self.nudge)

    def lasting(self) -> Lasting:
        """What the next inference can start from, in full precision, if `LASTING` or `STATES` were kept."""
        if self._fixed is not None:
            return self._fixed.lasting()
        full, lasting = self._blocks.batch.full, []
        for k in range(1, self.wiring.depth + 1):
            n = self.neurons[k]
            mean = converted(self._zeros(k) if n.mean is None else n.mean, full)
            lasting.append((mean, None if n.difference is None else converted(n.difference, full)))
        return lasting

    def _planner(self, different: Sequence[bool] | None = None) -> Planner:
        return Planner(self.wiring, self._linear, different=different, damped=self._damped)

    def _plan(self, updates: tuple[Update, ...], different: tuple[bool, ...], learn: bool, keep: Names) -> Bound:
        """The calls of one inference; the same for every batch on which a schedule says the same."""
        return self._binding.bind(self._planner(different).plan(updates, learn=learn), self._kept(keep))

    def _kept(self, names: Names) -> frozenset[Register]:
        """What is read after the last update."""
        outputs = {Register("output", k) for k in self.wiring.outputs}
        return frozenset(outputs | {Register(name, k) for name in names for k in self.neurons})

    def _follow(self, bound: Bound) -> None:
        self._enter()
        for register in bound.needs:
            if register.name == "mean" and self.neurons[register.number].mean is None:
                self.neurons[register.number].mean = self._zeros(register.number)
        with frozen_weights(self._synapses):
            self.products += bound()

    def _bound_to_memory(self, bound: Bound) -> Fixed | None:
        """What does the same on memory that stays, where there is such."""
        if self._damped or self._compiled or listeners() or crossing.OPEN:
            return None
        fixed = self._memories.fixed(bound, self._blocks.batch)
        return None if bound.products is None else fixed

    def _pairs(self) -> dict[int, tuple[Tensor, Tensor]]:
        """z^+ and z^- of layers 1..L."""
        return {k: self._blocks.pair(self.neurons[k]) for k in range(1, self.wiring.depth + 1)}

    def _zeros(self, k: int) -> Tensor:
        """The state of a layer that has never been updated."""
        batch = self._blocks.batch
        return zeros(batch.x, self.net.state_shapes([tuple(x.shape[1:]) for x in batch.inputs])[k], batch.low)
