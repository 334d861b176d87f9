"""Inference on one batch: the executor of a plan, on layers of dyadic neurons and the links between them.

What is computed, kept, freed and learnt when is the plan's alone; this does what it says, and no autograd graph is
made that spans two layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Block, Learning, Planner, Step, Trait
from dualprop.engines.dyads.schedules import Update
from dualprop.engines.dyads.states import DyadicState, Nudge, both, dyad
from dualprop.engines.states import ByLayer
from dualprop.errors import DivergenceError
from dualprop.nets.counting import counting
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net, zeros
from dualprop.nets.synapses import frozen_weights, product_dtype
from dualprop.nets.wiring import Wiring


class Task(NamedTuple):
    """What an output layer is to learn: its loss and the encoded targets, of the output's shape."""

    loss: Loss
    y: Tensor


class _Change(NamedTuple):
    """How far a state has moved in a round."""

    relative: float  # ‖Δz‖/‖z‖
    norm: float  # ‖Δz‖


class _Moved(NamedTuple):
    """What a block update makes of a layer."""

    neurons: Neurons
    mean: Tensor | None  # None where nobody reads it
    difference: Tensor | None  # None is zero: nothing has nudged the layer
    states: tuple[Tensor, Tensor] | None  # z^+ and z^-, if they are kept


@lru_cache(maxsize=32)
def planned(
    wiring: Wiring,
    traits: tuple[Trait, ...],
    different: tuple[bool, ...],
    updates: tuple[Update, ...],
    learn: bool,
) -> tuple[Step, ...]:
    """The plan of one inference; the same one for every batch on which a schedule says the same."""
    return Planner(wiring, traits, different=different).plan(updates, learn=learn)


class Inference:
    """Dyadic states of all layers for one batch, with the weights as they are, and what the edges learn from them.

    Args:
        net: whose layers are updated.
        inputs: one batch for each input of the net, shape (B, ...).
        tasks: what each output layer is to learn, by its number.
        nudge: how states are nudged and averaged.
        start: the states to start from, all but the inputs'; at zero if there are none.
        keep: whether `state` will be asked for; without it z^+ and z^- of a layer are freed once their mean and
            difference are known, which is all that learning needs.
        damping: λ in [0, 1), the part of the old states that an update keeps, z ← (1 - λ) new + λ old.
        dyad: how mean and difference are computed: `states.dyad`, or that compiled.

    Attributes:
        counts: the products made so far, without those that edges make to learn.
        updates: how many the schedule has asked for so far.
    """

    def __init__(
        self,
        net: Net,
        inputs: Sequence[Tensor],
        tasks: Mapping[int, Task],
        nudge: Nudge,
        *,
        start: DyadicState | None = None,
        keep: bool = True,
        damping: float = 0.0,
        dyad: Callable[..., tuple[Tensor, Tensor]] = dyad,
    ) -> None:
        self.net, self.wiring, self.tasks, self.nudge = net, net.wiring, tasks, nudge
        self.damping, self.keep = damping, keep or damping > 0
        self._dyad = dyad
        self.x = inputs[0]
        self._in_shapes = [tuple(x.shape[1:]) for x in inputs]
        self._product_dtype = product_dtype(self.x)
        self._potentials = [layer.potential for layer in net.stack]
        self.neurons = {
            k: Neurons(k, self._potentials[k - 1] if k > 0 else None, self._zeros) for k in net.wiring.out_of
        }
        self.links = [self._link(e) for e in range(len(net.synapses))]
        for number, x in enumerate(inputs):
            self._write(_Moved(self.neurons[-number], x, None, (x, x)))
        for k in range(1, self.wiring.depth + 1) if start is not None else ():
            assert start is not None
            self._write(self._moved(self.neurons[k], start.plus[k], start.minus[k]))
        self._outputs: dict[int, Tensor] = {}
        self.counts = counting()
        self.updates = 0

    def _link(self, e: int) -> Link:
        source, target = self.wiring.edges[e]
        below, above = self.neurons[source], self.neurons[target]
        link = Link(self.net.synapses[e], below, above, self.nudge.weight(self.wiring, source, target))
        below.out.append(link)
        above.into.append(link)
        return link

    @property
    def traits(self) -> tuple[Trait, ...]:
        """What a plan must know of the synapses."""
        return tuple(Trait(synapse.linear, synapse.eager) for synapse in self.net.synapses)

    @property
    def _different(self) -> tuple[bool, ...]:
        return tuple(self.neurons[k].difference is not None for k in range(self.wiring.depth + 1))

    def _planner(self) -> Planner:
        return Planner(self.wiring, self.traits, different=self._different, damped=self.damping > 0)

    def run(self, updates: Iterable[Update], learn: bool) -> None:
        """Update the blocks that a schedule names, in its order.

        Args:
            updates: which layers next, and whether the losses nudge the outputs.
            learn: whether each layer's edges add the batch mean of (1/β_k) (z_k^- - z_k^+) z̄_j^T to `.grad` as
                soon as all their ends have made their last update. What they have read is freed: the inference is
                spent afterwards, but for `output` and `state`.
        """
        updates = tuple(updates)
        self.updates += len(updates)
        if self.damping:
            plan = self._planner().plan(updates, learn=learn)
        else:
            plan = planned(self.wiring, self.traits, self._different, updates, learn)
        with frozen_weights(self.net.synapses):
            self._follow(plan)

    def settle(self, rounds: Iterable[Sequence[Update]], tolerance: float, learn: bool) -> tuple[int, float]:
        """Update in rounds until no state moves by more than the tolerance in one, or all are done.

        Args:
            rounds: the updates of each.
            tolerance: the largest relative change ‖Δz‖/‖z‖ of a layer's states, over the batch, that ends it.
            learn: whether all edges learn in the end.

        Returns:
            How many rounds there were, and the residual: the largest change in the last of them.

        Raises:
            DivergenceError: if a state is not finite, or the residual still grows after the last round.
        """
        planner = self._planner()
        moves: list[dict[int, _Change]] = []
        with frozen_weights(self.net.synapses):
            for number, updates in enumerate(rounds, 1):
                before = {k: self._pair(k) for k in range(1, self.wiring.depth + 1)}
                self.updates += len(updates)
                self._follow(planner.plan(updates, more=True))
                moves.append({k: _change(self._pair(k), pair) for k, pair in before.items()})
                for k, change in moves[-1].items():
                    if not math.isfinite(change.relative):
                        raise DivergenceError(
                            f"inference diverged at step {number}, layer {k}: a state became NaN or infinite"
                        )
                residual = max(change.relative for change in moves[-1].values())
                if residual <= tolerance:
                    break
            self._check_growth(moves, tolerance)
            if learn:
                self._follow(planner.plan((), learn=True))
        return len(moves), residual

    def _check_growth(self, moves: Sequence[Mapping[int, _Change]], tolerance: float) -> None:
        """Stop if a layer moves further in the last round than half way, where it did than after a quarter.

        States that grow by a factor in every round move by the same part of their norm, but ever further.
        """
        steps = len(moves)
        for k, last in moves[-1].items():
            early, half = moves[steps // 4][k], moves[steps // 2][k]
            if steps >= 8 and last.relative > tolerance and last.norm > half.norm > early.norm:
                raise DivergenceError(
                    f"inference does not settle by step {steps}, layer {k}: its states moved by {half.norm:.3g} "
                    f"half way and by {last.norm:.3g} in the end; give the schedule more damping"
                )

    def _follow(self, plan: Sequence[Step]) -> None:
        for step in plan:
            for moved in [self._update(block) for block in step.blocks]:
                self._write(moved)
            for learning in step.learnings:
                self._learn(learning)

    def _update(self, block: Block) -> _Moved:
        """What a block update makes of a layer."""
        n, f = self.neurons[block.layer], self._potentials[block.layer - 1]
        with self.counts:
            a, d = self._read(n, block)
        if block.layer in self.tasks:
            moved = self._update_output(n, a.to(self.x.dtype), d, block.nudged)
        elif d is None:
            z = f(a)
            moved = _Moved(n, z, None, (z, z))
        else:
            up, down = self.nudge.steps(self.wiring, block.layer)
            states = both(f, a.to(self.x.dtype), d.to(self.x.dtype), up, down) if self.keep else None
            if block.spend:
                n.total = n.pull = None
            moved = _Moved(n, *self._dyad(f, a, d, up, down, self.nudge.share, block.spend), states)
        return self._damped(moved) if self.damping else moved

    def _read(self, n: Neurons, block: Block) -> tuple[Tensor, Tensor | None]:
        """The drive of a layer, and its feedback, None for zero."""
        links = self.links
        if block.summed:
            n.drives([links[e] for e in block.drives], [links[e] for e in block.hold_drives])
        if block.fed and block.pulled:
            n.feedbacks(*([links[e] for e in part] for part in (block.fed, block.feedbacks, block.hold_feedbacks)))
        assert n.total is not None
        return n.total, n.pull if block.fed else None

    def _update_output(self, n: Neurons, a: Tensor, d: Tensor | None, nudged: bool) -> _Moved:
        """The update of an output layer, by its loss and what comes down to it from other layers."""
        f, task = self._potentials[n.number - 1], self.tasks[n.number]
        output = self._outputs[n.number] = f(a)
        toward = away = a
        if d is not None:
            d = d.to(a.dtype)
            up, down = self.nudge.steps(self.wiring, n.number)
            toward, away = torch.add(a, d, alpha=up), torch.sub(a, d, alpha=down)
        if nudged:
            up, down = self.nudge.at(n.number)
            pulled = () if d is None else ((toward, away),)  # a loss of one's own may know nothing of them
            return self._moved(n, *task.loss.output_step(f, a, task.y, up, down, *pulled))
        if d is not None:
            return self._moved(n, f.over(toward), f.over(away))  # in memory of their own
        return _Moved(n, output if n.out else None, None, (output, output))

    def _damped(self, moved: _Moved) -> _Moved:
        """The update that keeps a part λ of the old states."""
        assert moved.states is not None
        new, old = moved.states, self._pair(moved.neurons.number)
        plus, minus = (
            torch.lerp(z.to(self.x.dtype), before, self.damping) for z, before in zip(new, old, strict=True)
        )
        nudged = new[0] is not new[1] or old[0] is not old[1]
        return self._moved(moved.neurons, plus, minus if nudged else plus)

    def _moved(self, n: Neurons, plus: Tensor, minus: Tensor) -> _Moved:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        nudged = plus is not minus
        difference = (plus - minus).to(self._product_dtype) if nudged else None
        mean = (self.nudge.mean(plus, minus) if nudged else plus) if n.out else None
        return _Moved(n, mean, difference, (plus, minus))

    def _write(self, moved: _Moved) -> None:
        moved.neurons.move(moved.mean, moved.difference, self._product_dtype, damped=self.damping > 0)
        if self.keep:
            moved.neurons.states = moved.states

    def _learn(self, learning: Learning) -> None:
        """The gradients of the edges into a layer, and an end to what they alone still read."""
        n = self.neurons[learning.layer]
        if learning.layer in self.tasks:
            self._outputs[learning.layer] = self._output(learning.layer)  # while there is a drive to tell it
        difference, n.difference = n.difference, None
        n.undo()
        scale = -1 / (self.nudge.beta[learning.layer - 1] * len(self.x))
        delta = self._zeros(learning.layer) if difference is None else difference.mul_(scale)
        last = {link.below.number: link for link in n.into}
        for link in n.into:
            number = link.below.number
            link.learn(delta, free=number in learning.frees and link is last[number])

    def _output(self, k: int) -> Tensor:
        if k not in self._outputs:
            n = self.neurons[k]
            if n.total is None:
                with self.counts:
                    n.drives(n.into, ())
            assert n.total is not None
            self._outputs[k] = self._potentials[k - 1](n.total.to(self.x.dtype))
        return self._outputs[k]

    @property
    def outputs(self) -> list[Tensor]:
        """f(a) at the last update of each output layer: what the net said before a loss nudged it."""
        return [self._output(k) for k in self.wiring.outputs]

    def state(self) -> DyadicState:
        """The states as they are now, in full precision; asks for `keep`."""
        pairs = {k: self._pair(k) for k in self.neurons}
        plus, minus = (ByLayer.of(self.wiring, {k: pair[i] for k, pair in pairs.items()}) for i in (0, 1))
        return DyadicState(plus, minus, nudge=self.nudge)

    def _pair(self, k: int) -> tuple[Tensor, Tensor]:
        """z^+ and z^- in full precision; one tensor where nothing has nudged the layer."""
        plus, minus = self.neurons[k].states or (self._zeros(k),) * 2
        wide = plus.to(self.x.dtype)
        return wide, wide if plus is minus else minus.to(self.x.dtype)

    def _zeros(self, k: int) -> Tensor:
        """The state of a layer that has never been updated."""
        return zeros(self.x, self.net.state_shapes(self._in_shapes)[k], self._product_dtype)


def _change(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> _Change:
    """Of the two states, the one that has moved more, relatively, or is not finite."""
    changes = [_moved_by(z, before) for z, before in zip(new, old, strict=True)]
    return max(changes, key=lambda change: (not math.isfinite(change.relative), change.relative))


def _moved_by(z: Tensor, before: Tensor) -> _Change:
    norm = float(torch.linalg.vector_norm(z - before, dtype=torch.float64))
    return _Change(norm / float(torch.linalg.vector_norm(z, dtype=torch.float64)) if norm else 0.0, norm)
