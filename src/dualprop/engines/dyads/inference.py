"""Inference on one batch: a program bound to layers of dyadic neurons and the links between them.

What is computed, kept, freed and learnt when is the program's alone; here each of its instructions becomes a call,
made once and used for every batch of the same form. No autograd graph is made that spans two layers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Planner, Step
from dualprop.engines.dyads.program import Do, Instruction, Program, Register, assembled, every_register
from dualprop.engines.dyads.schedules import Update
from dualprop.engines.dyads.states import DyadicState, Nudge, both, dyad
from dualprop.engines.states import ByLayer
from dualprop.errors import DivergenceError
from dualprop.nets.counting import counting
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net, zeros
from dualprop.nets.synapses import Synapse, frozen_weights, product_dtype

Call = Callable[[], object]

ROUNDING = 16
"""Units of the last place that a state at a fixed point still moves by, and no more."""


class Task(NamedTuple):
    """What an output layer is to learn: its loss and the encoded targets, of the output's shape."""

    loss: Loss
    y: Tensor


Names = frozenset[str]
"""Of registers of layers."""

Lasting = Sequence[tuple[Tensor, Tensor | None]]
"""Mean and difference of layers k = 1..L, from which another inference can start; None for no difference."""

STATES = Names({"states", "mean", "difference"})
"""What is kept to be looked at."""

LASTING = Names({"mean", "difference"})
"""What is kept to start from."""

NOTHING = Names()


class _Change(NamedTuple):
    """How far a state has moved in a round."""

    relative: float  # ‖Δz‖/‖z‖
    norm: float  # ‖Δz‖


class _Bound:
    """The calls that do what a program says.

    Args:
        program: the program.
        calls: one for each instruction, with whether its products are of the inference, not of what edges learn.
    """

    def __init__(self, program: Program, calls: Sequence[tuple[Call, bool]]) -> None:
        self.needs = program.needs
        self.calls = [call for call, _ in calls]
        self._counted = calls
        self._products: int | None = None

    def __call__(self) -> int:
        """Do it, and say how many products the inference has made; the same at every call."""
        if self._products is None:
            self._products = self._count()
        else:
            for call in self.calls:
                call()
        return self._products

    def _count(self) -> int:
        counts = counting()
        for call, counted in self._counted:
            with counts if counted else nullcontext():
                call()
        return counts.total.products


class Inference:
    """Dyadic states of all layers for one batch, with the weights as they are, and what the edges learn from them.

    It serves batch after batch: `begin`, then `run` or `settle`, then `outputs` and `state`, then `end`.

    Args:
        net: whose layers are updated.
        nudge: how states are nudged and averaged.
        damping: λ in [0, 1), the part of the old states that an update keeps, z ← (1 - λ) new + λ old.
        dyad: how mean and difference are computed: `states.dyad`, or that compiled.

    Attributes:
        products: how many have been made for this batch, without those that edges make to learn.
        updates: how many the schedule has asked for.
    """

    x: Tensor
    tasks: Mapping[int, Task]

    def __init__(
        self,
        net: Net,
        nudge: Nudge,
        *,
        damping: float = 0.0,
        dyad: Callable[..., tuple[Tensor, Tensor]] = dyad,
    ) -> None:
        self.net, self.wiring, self.nudge, self.damping, self._dyad = net, net.wiring, nudge, damping, dyad
        self._layers, self._synapses = net.stack, net.synapses
        self.neurons = {k: Neurons(k, self._layers[k - 1].potential if k > 0 else None) for k in net.wiring.out_of}
        self.links = [self._link(e, synapse) for e, synapse in enumerate(self._synapses)]
        self._linear = [link.synapse.linear for link in self.links]
        self._every = every_register(net.wiring)
        self._forget = self._freeing(self._every)
        self._bound_to = lru_cache(maxsize=64)(self._bind)
        self._planned = lru_cache(maxsize=64)(self._plan)
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
        same = all(layer.potential is self.neurons[k].potential for k, layer in enumerate(self._layers, 1))
        return same and all(map(operator.is_, self.net.synapses, self._synapses))

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
        self.x, self.tasks, self._inputs, self._samples = inputs[0], tasks, inputs, len(inputs[0])
        self.dtype = product_dtype(self.x)
        self.products = self.updates = 0
        for number, x in enumerate(inputs):
            neurons = self.neurons[-number]
            neurons.mean, neurons.states = x.to(self.dtype), (x, x)
        for k, (mean, difference) in enumerate(start or (), 1):
            neurons = self.neurons[k]
            neurons.mean = mean.to(self.dtype)
            neurons.difference = None if difference is None else difference.to(self.dtype)
        return self

    def end(self) -> None:
        """Forget the batch."""
        self._forget()
        del self.x, self.tasks, self._inputs

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
        different = tuple(self.neurons[k].difference is not None for k in range(self.wiring.depth + 1))
        self._follow(self._planned(updates, different, learn, keep))

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
        planner = self._planner()
        moves: list[dict[int, _Change]] = []
        for number, updates in enumerate(rounds, 1):
            before = {k: self._pair(k) for k in range(1, self.wiring.depth + 1)}
            self.updates += len(updates)
            self._follow(self._bound_to(planner.plan(updates), self._every))
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
            bound = self._bound_to(planner.plan((), learn=True), self._kept(keep))
            self._freeing(self._every - bound.needs - self._kept(keep))()
            self._follow(bound)
        return len(moves), residual

    def _check_growth(self, moves: Sequence[Mapping[int, _Change]], tolerance: float) -> None:
        """Stop if a layer moves further in the last round than half way, where it did than after a quarter.

        States that grow by a factor in every round move by the same part of their norm, but ever further. What
        rounding moves is no growth.
        """
        steps, least = len(moves), max(tolerance, ROUNDING * torch.finfo(self.dtype).eps)
        for k, last in moves[-1].items():
            early, half = moves[steps // 4][k], moves[steps // 2][k]
            if steps >= 8 and last.relative > least and last.norm > half.norm > early.norm:
                raise DivergenceError(
                    f"inference does not settle by step {steps}, layer {k}: its states moved by {half.norm:.3g} "
                    f"half way and by {last.norm:.3g} in the end; give the schedule more damping"
                )

    @property
    def outputs(self) -> list[Tensor]:
        """f(a) at the last update of each output layer: what the net said before a loss nudged it."""
        outputs = [self.neurons[k].output for k in self.wiring.outputs]
        return [output for output in outputs if output is not None]

    def state(self) -> DyadicState:
        """The states as they are now, in full precision, if `STATES` were kept."""
        pairs = {k: self._pair(k) for k in self.neurons}
        plus, minus = (ByLayer.of(self.wiring, {k: pair[i] for k, pair in pairs.items()}) for i in (0, 1))
        return DyadicState(plus, minus, nudge=self.nudge)

    def lasting(self) -> Lasting:
        """What the next inference can start from, in full precision, if `LASTING` or `STATES` were kept."""
        lasting = []
        for k in range(1, self.wiring.depth + 1):
            n = self.neurons[k]
            mean = (self._zeros(k) if n.mean is None else n.mean).to(self.x.dtype)
            lasting.append((mean, None if n.difference is None else n.difference.to(self.x.dtype)))
        return lasting

    def _planner(self, different: Sequence[bool] | None = None) -> Planner:
        return Planner(self.wiring, self._linear, different=different, damped=self.damping > 0)

    def _plan(self, updates: tuple[Update, ...], different: tuple[bool, ...], learn: bool, keep: Names) -> _Bound:
        """The calls of one inference; the same for every batch on which a schedule says the same."""
        return self._bind(self._planner(different).plan(updates, learn=learn), self._kept(keep))

    def _kept(self, names: Names) -> frozenset[Register]:
        """What is read after the last update."""
        outputs = {Register("output", k) for k in self.wiring.outputs}
        return frozenset(outputs | {Register(name, k) for name in names for k in self.neurons})

    def _follow(self, bound: _Bound) -> None:
        for register in bound.needs:
            if register.name == "mean" and self.neurons[register.number].mean is None:
                self.neurons[register.number].mean = self._zeros(register.number)
        with frozen_weights(self._synapses):
            self.products += bound()

    def _bind(self, steps: Sequence[Step], keep: frozenset[Register]) -> _Bound:
        program = assembled(steps, self.wiring, keep, damped=self.damping > 0)
        calls: list[tuple[Call, bool]] = []
        for instruction in program.instructions:
            calls.append((self._call(instruction), instruction.do is not Do.LEARN))
            if instruction.frees:
                calls.append((self._freeing(instruction.frees), False))
        return _Bound(program, calls)

    def _call(self, instruction: Instruction) -> Call:
        """What does it."""
        number, edges = instruction.number, [self.links[e] for e in instruction.edges]
        match instruction.do:
            case Do.DRIVE:
                return self.links[number].drive
            case Do.SEE:
                return self.links[number].see
            case Do.SEND:
                return self.links[number].send
            case Do.LEARN:
                return self.links[number].learn
            case Do.GATHER:
                return self.neurons[number].gather
            case Do.COLLECT:
                return partial(self.neurons[number].collect, edges)
            case Do.SAY:
                return partial(self._say, self.neurons[number])
            case Do.SCALE:
                return partial(self._scale, self.neurons[number], self.nudge.beta[number - 1], instruction.spend)
            case Do.UPDATE:
                return self._updating(instruction)

    def _freeing(self, registers: Iterable[Register]) -> Call:
        places = [(self.links[r.number] if r.of_edge else self.neurons[r.number], r.name) for r in registers]

        def free() -> None:
            for owner, name in places:
                setattr(owner, name, None)

        return free

    def _updating(self, update: Instruction) -> Call:
        """What updates a layer."""
        n, unread = self.neurons[update.number], {register.name for register in update.frees}
        keep, mean = "states" not in unread or self.damping > 0, "mean" not in unread
        if update.number in self.wiring.outputs:
            call: Call = partial(self._update_output, n, update, mean)
        elif update.fed:
            call = self._nudged(n, update.spend, keep)
        else:
            call = self._resting(n, keep)
        return partial(self._damped, n, call, mean) if self.damping else call

    def _resting(self, n: Neurons, keep: bool) -> Call:
        """z^+ = z^- = f(a)."""
        f = n.potential
        assert f is not None

        def update() -> None:
            assert n.total is not None
            z = f(n.total)
            n.mean, n.difference = z.to(self.dtype), None
            if keep:
                n.states = z, z

        return update

    def _nudged(self, n: Neurons, spend: bool, keep: bool) -> Call:
        """z^+ = f(a + α r d) and z^- = f(a - ᾱ r d)."""
        f, dyad, share = n.potential, self._dyad, self.nudge.share
        up, down = self.nudge.steps(self.wiring, n.number)
        assert f is not None

        def update() -> None:
            a, d = n.total, n.pull
            assert a is not None
            assert d is not None
            if keep:
                n.states = both(f, a.to(self.x.dtype), d.to(self.x.dtype), up, down)
            mean, n.difference = dyad(f, a, d, up, down, share, spend)
            n.mean = mean.to(self.dtype)

        return update

    def _update_output(self, n: Neurons, update: Instruction, mean: bool) -> None:
        """The update of an output layer, by its loss and what comes down to it from other layers."""
        assert n.potential is not None
        assert n.total is not None
        f, task, a = n.potential, self.tasks[n.number], n.total.to(self.x.dtype)
        output = n.output = f(a)
        toward = away = a
        if update.fed:
            assert n.pull is not None
            d, (up, down) = n.pull.to(a.dtype), self.nudge.steps(self.wiring, n.number)
            toward, away = torch.add(a, d, alpha=up), torch.sub(a, d, alpha=down)
        if update.nudged:
            up, down = self.nudge.at(n.number)
            pulled = ((toward, away),) if update.fed else ()  # a loss of one's own may know nothing of them
            self._move(n, *task.loss.output_step(f, a, task.y, up, down, *pulled), mean)
        elif update.fed:
            self._move(n, f.over(toward), f.over(away), mean)  # in memory of their own
        else:
            self._move(n, output, output, mean)

    def _damped(self, n: Neurons, update: Call, mean: bool) -> None:
        """The update that keeps a part λ of the old states."""
        old = self._pair(n.number)
        update()
        assert n.states is not None
        new = n.states
        plus, minus = (
            torch.lerp(z.to(self.x.dtype), before, self.damping) for z, before in zip(new, old, strict=True)
        )
        nudged = new[0] is not new[1] or old[0] is not old[1]
        self._move(n, plus, minus if nudged else plus, mean)

    def _move(self, n: Neurons, plus: Tensor, minus: Tensor, mean: bool) -> None:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        nudged = plus is not minus
        n.difference = (plus - minus).to(self.dtype) if nudged else None
        if mean:
            n.mean = (self.nudge.mean(plus, minus) if nudged else plus).to(self.dtype)
        n.states = plus, minus

    def _say(self, n: Neurons) -> None:
        """What an output layer says that has never been updated."""
        assert n.potential is not None
        assert n.total is not None
        n.output = n.potential(n.total.to(self.x.dtype))

    def _scale(self, n: Neurons, beta: float, spend: bool) -> None:
        """(1/β_k) (z_k^- - z_k^+) for the batch mean; what the edges learn from."""
        scale = -1 / (beta * self._samples)
        if n.difference is None:
            n.delta = self._zeros(n.number)
        else:
            n.delta = n.difference.mul_(scale) if spend else n.difference.mul(scale)

    def _pair(self, k: int) -> tuple[Tensor, Tensor]:
        """z^+ and z^- in full precision; one tensor where nothing has nudged the layer."""
        n = self.neurons[k]
        plus, minus = n.states or self._apart(n.mean, n.difference) or (self._zeros(k),) * 2
        wide = plus.to(self.x.dtype)
        return wide, wide if plus is minus else minus.to(self.x.dtype)

    def _apart(self, mean: Tensor | None, difference: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """z^+ and z^- that have this mean and this difference."""
        if mean is None or difference is None:
            return None if mean is None else (mean, mean)
        mean, difference, share = mean.to(self.x.dtype), difference.to(self.x.dtype), self.nudge.share
        return torch.add(mean, difference, alpha=1 - share), torch.sub(mean, difference, alpha=share)

    def _zeros(self, k: int) -> Tensor:
        """The state of a layer that has never been updated."""
        return zeros(self.x, self.net.state_shapes([tuple(x.shape[1:]) for x in self._inputs])[k], self.dtype)


def _change(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> _Change:
    """Of the two states, the one that has moved more, relatively, or is not finite."""
    changes = [_moved_by(z, before) for z, before in zip(new, old, strict=True)]
    return max(changes, key=lambda change: (not math.isfinite(change.relative), change.relative))


def _moved_by(z: Tensor, before: Tensor) -> _Change:
    norm = float(torch.linalg.vector_norm(z - before, dtype=torch.float64))
    return _Change(norm / float(torch.linalg.vector_norm(z, dtype=torch.float64)) if norm else 0.0, norm)
