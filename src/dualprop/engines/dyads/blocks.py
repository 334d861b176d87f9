"""The block updates of layers of dyads, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.engines.dyads.neurons import Neurons
from dualprop.engines.dyads.program import Instruction
from dualprop.engines.dyads.states import Nudge, both, dyad
from dualprop.nets.kernels.arena import converted, room
from dualprop.nets.losses import Loss
from dualprop.nets.synapses import product_dtype
from dualprop.nets.wiring import Wiring

Call = Callable[[], object]
"""What does an instruction, on the registers that it reads."""


class Task(NamedTuple):
    """What an output layer is to learn: its loss and the encoded targets, of the output's shape."""

    loss: Loss
    y: Tensor


class Batch:
    """What the layers must know of a batch.

    Args:
        inputs: one for each input of the net, shape (B, ...).
        tasks: what each output layer is to learn, by its number.

    Attributes:
        x: the first input.
        samples: B.
        full: the type of the states.
        low: the type in which the products read them: autocast's, if it is on.
    """

    __slots__ = ("full", "inputs", "low", "samples", "tasks", "x")

    def __init__(self, inputs: Sequence[Tensor], tasks: Mapping[int, Task]) -> None:
        self.inputs, self.tasks, self.x = inputs, tasks, inputs[0]
        self.samples, self.full, self.low = self.x.shape[0], self.x.dtype, product_dtype(self.x)


class Blocks:
    """Makes the calls that update layers, and keeps the batch on which they do.

    Args:
        wiring: the graph.
        nudge: how states are nudged and averaged.
        damping: λ in [0, 1), the part of the old states that an update keeps.
        dyad: how mean and difference are computed.

    Attributes:
        batch: the one at hand.
        zeros: the state of a layer that has never been updated, by its number.
    """

    batch: Batch
    zeros: Callable[[int], Tensor]

    damped = False
    """Whether updates read the states before them, whatever the damping λ."""

    def __init__(
        self, wiring: Wiring, nudge: Nudge, damping: float, dyad: Callable[..., tuple[Tensor, Tensor]] = dyad
    ) -> None:
        self._wiring, self._nudge, self._damping, self._dyad = wiring, nudge, damping, dyad

    def begin(self, batch: Batch) -> None:
        """A batch."""
        self.batch = batch

    def end(self) -> None:
        """Forget it."""
        del self.batch

    def updating(self, n: Neurons, update: Instruction) -> Call:
        """What updates a layer as an instruction says."""
        unread = {register.name for register in update.frees}
        keep, mean = "states" not in unread or self._damping > 0, "mean" not in unread
        if n.number in self._wiring.outputs:
            call = self._at_output(n, update, mean)
        elif update.fed:
            call = self._nudged(n, update.spend, keep)
        else:
            call = self._resting(n, keep)
        return partial(self._damped, n, call, mean) if self._damping else call

    def saying(self, n: Neurons) -> Call:
        """What an output layer says that has never been updated."""
        f = n.potential
        assert f is not None

        def say() -> None:
            assert n.total is not None
            n.output = f(n.total.to(self.batch.full))

        return say

    def scaling(self, n: Neurons, spend: bool) -> Call:
        """(1/β_k) (z_k^- - z_k^+) for the batch mean; what the edges learn from."""

        def scale() -> None:
            if n.difference is None:
                n.delta = self.zeros(n.number)
            else:
                scale = self._scale(n)
                n.delta = n.difference.mul_(scale) if spend else n.difference.mul(scale)

        return scale

    def _scale(self, n: Neurons) -> float:
        return -1 / (self._nudge.beta[n.number - 1] * self.batch.samples)

    def pair(self, n: Neurons) -> tuple[Tensor, Tensor]:
        """z^+ and z^- in full precision; one tensor where nothing has nudged the layer."""
        plus, minus = n.states or self._apart(n.mean, n.difference) or (self.zeros(n.number),) * 2
        wide = converted(plus, self.batch.full)
        return wide, wide if plus is minus else converted(minus, self.batch.full)

    def _apart(self, mean: Tensor | None, difference: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """z^+ and z^- that have this mean and this difference."""
        if mean is None or difference is None:
            return None if mean is None else (mean, mean)
        full, share = self.batch.full, self._nudge.share
        mean, difference = converted(mean, full), converted(difference, full)
        plus = torch.add(mean, difference, alpha=1 - share, out=room(mean))
        return plus, torch.sub(mean, difference, alpha=share, out=room(mean))

    def _resting(self, n: Neurons, keep: bool) -> Call:
        """z^+ = z^- = f(a)."""
        f = n.potential
        assert f is not None

        def update() -> None:
            assert n.total is not None
            z = f.fresh(n.total)
            n.mean, n.difference = converted(z, self.batch.low), None
            if keep:
                n.states = z, z

        return update

    def _nudged(self, n: Neurons, spend: bool, keep: bool) -> Call:
        """z^+ = f(a + α r d) and z^- = f(a - ᾱ r d)."""
        f, dyad, share = n.potential, self._dyad, self._nudge.share
        up, down = self._nudge.steps(self._wiring, n.number)
        assert f is not None

        def update() -> None:
            a, d = n.total, n.pull
            assert a is not None
            assert d is not None
            if keep:
                n.states = both(f, a.to(self.batch.full), d.to(self.batch.full), up, down)
                if f.draws:  # read once more, they would be others
                    return self._move(n, *n.states, mean=True)
            mean, n.difference = dyad(f, a, d, up, down, share, spend)
            n.mean = mean.to(self.batch.low)
            return None

        return update

    def _at_output(self, n: Neurons, update: Instruction, mean: bool) -> Call:
        """The update of an output layer, by its loss and what comes down to it from other layers."""
        f, steps, nudges = n.potential, self._nudge.steps(self._wiring, n.number), self._nudge.at(n.number)
        assert f is not None

        def pulled(a: Tensor) -> tuple[Tensor, Tensor]:
            assert n.pull is not None
            d, (up, down) = n.pull.to(a.dtype), steps
            return torch.add(a, d, alpha=up), torch.sub(a, d, alpha=down)

        def free() -> None:
            assert n.total is not None
            a = n.total.to(self.batch.full)
            output = n.output = f(a)
            plus, minus = output, output
            if update.fed:
                toward, away = pulled(a)
                plus, minus = f.over(toward), f.minus.over(away)
            self._move(n, plus, minus, mean)

        def nudged() -> None:
            assert n.total is not None
            a, task = n.total.to(self.batch.full), self.batch.tasks[n.number]
            n.output = f(a)
            drives = (pulled(a),) if update.fed else ()  # a loss of one's own may know nothing of them
            self._move(n, *task.loss.output_step(f, a, task.y, *nudges, *drives), mean)

        return nudged if update.nudged else free

    def _damped(self, n: Neurons, update: Call, mean: bool) -> None:
        """The update that keeps a part λ of the old states."""
        old = self.pair(n)
        update()
        assert n.states is not None
        new = n.states
        plus, minus = (
            torch.lerp(z.to(self.batch.full), before, self._damping) for z, before in zip(new, old, strict=True)
        )
        nudged = new[0] is not new[1] or old[0] is not old[1]
        self._move(n, plus, minus if nudged else plus, mean)

    def _move(self, n: Neurons, plus: Tensor, minus: Tensor, mean: bool) -> None:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        low, nudged = self.batch.low, plus is not minus
        n.difference = (plus - minus).to(low) if nudged else None
        if mean:
            n.mean = (self._nudge.mean(plus, minus) if nudged else plus).to(low)
        n.states = plus, minus
