"""The event-driven engine: block updates of dyadic states, one layer and its two neighbours at a time.

Every layer keeps its feed-forward drive a_k = A_k(z̄_{k-1}) and its feedback
d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-) for as long as what they come from has not changed, so that an update costs
at most two matrix products and often none. A synapse learns as soon as both its ends have made their last update,
and what no one will read again is freed. No autograd graph is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from dualprop.engines.dyads.schedules import Update
from dualprop.engines.dyads.states import DyadicState, Nudge, dyad
from dualprop.nets.counting import counting
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.synapses import Seen, layout, product_dtype, standing_still


class _Block(NamedTuple):
    """What a block update makes of layer k."""

    k: int
    mean: Tensor | None  # of the output layer nobody reads it
    difference: Tensor | None  # None is zero: nothing has nudged the layer
    states: tuple[Tensor, Tensor] | None  # z^+ and z^-, if they are kept


class Inference:
    """Inference on one batch, with the weights as they are, and what the synapses learn from it.

    Args:
        net: whose layers are updated.
        loss: nudges the output layer.
        x: inputs, shape (B, ...).
        y: encoded targets, of the output's shape.
        nudge: how states are nudged and averaged.
        start: the states to start from, all but the input's; at zero if there are none.
        keep: whether `state` will be asked for; without it z^+ and z^- of a layer are freed once their mean and
            difference are known, which is all that learning needs.
        dyad: how that mean and difference are computed: `states.dyad`, or that compiled.

    Attributes:
        counts: the products made so far, without those that synapses make to learn.
        updates: how many it has made so far.
    """

    def __init__(
        self,
        net: Net,
        loss: Loss,
        x: Tensor,
        y: Tensor,
        nudge: Nudge,
        start: DyadicState | None,
        keep: bool,
        dyad: Callable[..., tuple[Tensor, Tensor]] = dyad,
    ) -> None:
        self.net, self.layers = net, net.chain
        self.depth = len(self.layers)
        self.loss, self.x, self.y, self.nudge, self.keep = loss, x, y, nudge, keep
        self._dyad = dyad
        self._product_dtype = product_dtype(x)
        nothing: list[Tensor | None] = [None] * (self.depth + 1)
        # z̄_k and z_k^+ - z_k^- as the products read them; None where they are zero because nothing has been there
        self._mean, self._difference = nothing.copy(), nothing.copy()
        self._drive, self._feedback = nothing.copy(), nothing.copy()
        self._plain = [False] * (self.depth + 1)  # z̄_k is f(a_k), made again from a_k when it is asked for
        self._seen: list[Seen | None] = [None] * (self.depth + 1)  # what the synapse above layer k knows of z̄_k
        self._settled: list[bool | None] = [None] * (self.depth + 1)  # was the last update forced; None: stale
        self._states: list[tuple[Tensor, Tensor] | None] = [None] * (self.depth + 1)
        self._output: Tensor | None = None
        self._write(_Block(0, x, None, (x, x)))
        if start is not None:
            for k in range(1, self.depth + 1):
                self._write(self._block_of(k, start.plus[k], start.minus[k]))
        self.counts = counting()
        self.updates = 0

    def run(self, updates: Iterable[Update], learn: bool) -> None:
        """Update the blocks that a schedule names, in its order.

        An update is skipped where neither drive nor nudge has changed since the layer's last one.

        Args:
            updates: which layers next, and whether the loss nudges the output.
            learn: whether each synapse adds the batch mean of (1/β_k) (z_k^- - z_k^+) z̄_{k-1}^T to `.grad` as
                soon as both its ends have made their last update. What it has read is freed: the inference is
                spent afterwards, but for `output` and `state`.
        """
        updates = list(updates)
        self.updates += len(updates)
        with standing_still(layer.synapse for layer in self.layers):
            self._run(updates, learn)

    def _run(self, updates: list[Update], learn: bool) -> None:
        last = self._last(updates)
        due: dict[int, list[int]] = {}  # after each update (-1: before them all), the synapses that can learn
        for k in range(self.depth, 0, -1) if learn else ():
            due.setdefault(max(last[k], last[k - 1]), []).append(k)
        for k in due.get(-1, ()):
            self._learn(k)
        for number, (layers, nudged) in enumerate(updates):
            blocks = []
            for k in layers:
                forced = nudged and k == self.depth
                if self._settled[k] is not forced:
                    # the layer above has read the state, and nobody will read the drive and feedback again
                    spend = learn and k < self.depth and last[k + 1] < number == last[k]
                    blocks.append(self._update(k, forced, spend))
                    self._settled[k] = forced
            for block in blocks:
                self._commit(block)
            for k in due.get(number, ()):
                self._learn(k)

    def _last(self, updates: list[Update]) -> list[int]:
        """The number of each layer's last update, -1 for none."""
        last = [-1] * (self.depth + 1)
        for number, (layers, _) in enumerate(updates):
            for k in layers:
                last[k] = number
        return last

    def _update(self, k: int, forced: bool, spend: bool) -> _Block:
        """What a block update makes of layer k.

        Args:
            k: its number.
            forced: whether the loss nudges it.
            spend: whether it may be written over its drive and feedback.
        """
        a, f = self.drive(k), self.layers[k - 1].potential
        if k == self.depth:
            a = a.to(self.x.dtype)
            self._output = f(a)
            if forced:
                return self._block_of(k, *self.loss.output_step(f, a, self.y, self.nudge.up, self.nudge.down))
            return _Block(k, None, None, (self._output, self._output))
        d = self.feedback(k)
        if d is None:
            z = f(a)
            return _Block(k, z, None, (z, z))
        states = self.nudge.hidden(f, a.to(self.x.dtype), d.to(self.x.dtype), k) if self.keep else None
        if spend:
            self._drive[k] = self._feedback[k] = None
        return _Block(k, *self._dyad(f, a, d, *self.nudge.steps(k), self.nudge.share, spend), states)

    def _block_of(self, k: int, plus: Tensor, minus: Tensor) -> _Block:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        nudged = plus is not minus
        difference = (plus - minus).to(self._product_dtype) if nudged else None
        mean = self.nudge.mean(plus, minus) if nudged else plus
        return _Block(k, mean, difference, (plus, minus))

    def _commit(self, block: _Block) -> None:
        """Write the states of a layer and tell its neighbours that their inputs have changed."""
        k, before = block.k, self._difference[block.k]
        self._write(block)
        self._plain[k] = k < self.depth and block.difference is None and self._drive[k] is not None
        if before is not None or block.difference is not None:  # zero as before is no news to the layer below
            self._feedback[k - 1] = self._settled[k - 1] = None
        if k == self.depth:
            return
        if self._plain[k + 1]:  # not for long: its drive goes
            self._mean[k + 1], self._plain[k + 1] = self.mean(k + 1), False
        self._drive[k + 1] = self._settled[k + 1] = None
        if self._feedback[k] is not None and not self.layers[k].synapse.linear:
            self._feedback[k] = self._settled[k] = None  # other neurons may win now

    def _write(self, block: _Block) -> None:
        k = block.k
        self._difference[k] = block.difference
        if k < self.depth and block.mean is not None:
            self._mean[k], self._seen[k] = block.mean.to(self._product_dtype), None
        if self.keep:
            self._states[k] = block.states

    def mean(self, k: int) -> Tensor:
        """z̄_k as the products read it."""
        mean, drive = self._mean[k], self._drive[k]
        if mean is None and self._plain[k] and drive is not None:
            return self.layers[k - 1].potential(drive).to(self._product_dtype)
        return self._zeros(k) if mean is None else mean

    def drive(self, k: int) -> Tensor:
        """a_k = A_k(z̄_{k-1}), recomputed only if z̄_{k-1} has changed."""
        drive = self._drive[k]
        if drive is None:
            synapse = self.layers[k - 1].synapse
            with self.counts:
                p, self._seen[k - 1] = synapse.see(self.mean(k - 1))
                if self._plain[k - 1]:
                    self._mean[k - 1] = None  # its drive is kept: there is no room for both
                drive = self._drive[k] = synapse.affine(p)
        return drive

    def feedback(self, k: int) -> Tensor | None:
        """d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-), recomputed only if that has changed; None is zero."""
        feedback, above = self._feedback[k], self._difference[k + 1]
        if feedback is None and above is not None:
            synapse = self.layers[k].synapse
            if self._seen[k] is None and synapse.behind is not None:
                self.drive(k + 1)  # to see is to compute it, and it may be asked for
            seen = self._seen[k]
            if seen is None:
                seen = self._seen[k] = synapse.see(self.mean(k))[1]
            with self.counts:
                feedback = self._feedback[k] = synapse.send_down(above, seen)
        return feedback

    @property
    def output(self) -> Tensor:
        """f_L(a_L) at the last update of layer L: what the net said before the loss nudged it."""
        if self._output is None:
            self._output = self.layers[-1].potential(self.drive(self.depth).to(self.x.dtype))
        return self._output

    def state(self) -> DyadicState:
        """The states as they are now, in full precision; asks for `keep`."""
        pairs = [pair or (self._zeros(k),) * 2 for k, pair in enumerate(self._states)]
        plus = tuple(plus.to(self.x.dtype) for plus, _ in pairs)
        minus = (z if p is m else m.to(self.x.dtype) for z, (p, m) in zip(plus, pairs, strict=True))
        return DyadicState(plus, tuple(minus), self.nudge)

    def _learn(self, k: int) -> None:
        """The gradient of the synapse into layer k, and an end to what it alone still read."""
        if k == self.depth:
            _ = self.output  # while there is a drive to tell it
        if self._plain[k]:
            self._mean[k], self._plain[k] = self.mean(k), False  # the synapse above has yet to learn from it
        difference, mean = self._difference[k], self.mean(k - 1)
        self._difference[k] = self._drive[k] = self._feedback[k - 1] = None
        self._mean[k - 1], self._plain[k - 1], self._seen[k - 1] = None, False, None
        delta = (
            self._zeros(k) if difference is None else difference.mul_(-1 / (self.nudge.beta[k - 1] * len(self.y)))
        )
        synapse = self.layers[k - 1].synapse
        synapse.core.kept = None
        synapse.add_grad(delta, mean)

    def _zeros(self, k: int) -> Tensor:
        """The state of a layer that has never been updated."""
        shape = self.net.shapes(tuple(self.x.shape[1:]))[k]
        zeros = self.x.new_zeros(len(self.x), *shape, dtype=self._product_dtype)
        return zeros.contiguous(memory_format=layout(self.x)) if len(shape) == 3 else zeros
