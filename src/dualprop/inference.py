"""The event-driven engine: block updates of dyadic states, one layer and its two neighbours at a time.

Every layer keeps its feed-forward drive a_k = A_k(z̄_{k-1}) and its feedback
d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-) for as long as what they come from has not changed, so that an update costs
at most two matrix products and often none. No autograd graph is made.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dualprop.losses import Loss
from dualprop.net import Net
from dualprop.schedules import Update
from dualprop.states import DyadicState, Nudge


class Inference:
    """Inference on one batch, with the weights as they are.

    Args:
        net: whose layers are updated.
        loss: nudges the output layer.
        x: inputs, shape (B, ...).
        y: encoded targets, of the output's shape.
        nudge: how states are nudged and averaged.
        start: the states to start from, all but the input's; at zero if there are none.
        keep: whether `state` will be asked for; without it z^+ and z^- of a layer are freed once their mean and
            difference are known, which is all that learning needs.

    Attributes:
        products: matrix products made so far.
        naive_products: what a loop would have made that computes both drives at every update.
    """

    def __init__(
        self, net: Net, loss: Loss, x: Tensor, y: Tensor, nudge: Nudge, start: DyadicState | None, keep: bool
    ) -> None:
        self.net, self.layers = net, net.chain
        self.depth = len(self.layers)
        self.loss, self.x, self.y, self.nudge, self.keep = loss, x, y, nudge, keep
        kind = x.device.type
        casts = torch.is_autocast_enabled(kind) and x.dtype != torch.float64  # autocast leaves float64 alone
        self._product_dtype = torch.get_autocast_dtype(kind) if casts else x.dtype
        # z̄_k and z_k^+ - z_k^- as the products read them; None where they are zero because nothing has been there
        self._mean: list[Tensor | None] = [None] * (self.depth + 1)
        self._difference: list[Tensor | None] = [None] * (self.depth + 1)
        self._states: list[tuple[Tensor, Tensor] | None] = [None] * (self.depth + 1)
        self._write(0, x, x)
        if start is not None:
            for k in range(1, self.depth + 1):
                self._write(k, start.plus[k], start.minus[k])
        self._drive: list[Tensor | None] = [None] * (self.depth + 1)
        self._feedback: list[Tensor | None] = [None] * (self.depth + 1)
        self._settled: list[bool | None] = [None] * (self.depth + 1)  # was the last update forced; None: stale
        self._output: Tensor | None = None
        self.products = 0
        self.naive_products = 0

    def run(self, updates: Iterable[Update]) -> None:
        """Update the blocks that a schedule names, in its order.

        An update is skipped where neither drive nor nudge has changed since the layer's last one.
        """
        for layers, nudged in updates:
            blocks = []
            for k in layers:
                forced = nudged and k == self.depth
                if self._settled[k] is not forced:
                    blocks.append((k, *self._block(k, forced)))
                    self._settled[k] = forced
                self.naive_products += 2 - (k == self.depth)
            for k, plus, minus in blocks:
                self._commit(k, plus, minus)

    def _block(self, k: int, forced: bool) -> tuple[Tensor, Tensor]:
        """What z_k^+ and z_k^- become; one and the same tensor where nothing nudges them."""
        a, f = self.drive(k), self.layers[k - 1].potential
        if k == self.depth:
            a = a.to(self.x.dtype)
            self._output = f(a)
            if forced:
                return self.loss.output_step(f, a, self.y, self.nudge.up, self.nudge.down)
            return self._output, self._output
        d = self.feedback(k)
        if d is None:
            z = f(a)
            return z, z
        return self.nudge.hidden(f, a.to(self.x.dtype), d.to(self.x.dtype), k)

    def _commit(self, k: int, plus: Tensor, minus: Tensor) -> None:
        """Write the states of layer k and tell its neighbours that their inputs have changed."""
        before = self._difference[k]
        self._write(k, plus, minus)
        if before is not None or self._difference[k] is not None:  # zero as before is no news to the layer below
            self._feedback[k - 1] = self._settled[k - 1] = None
        if k < self.depth:
            self._drive[k + 1] = self._settled[k + 1] = None

    def _write(self, k: int, plus: Tensor, minus: Tensor) -> None:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        nudged = plus is not minus
        self._difference[k] = (plus - minus).to(self._product_dtype) if nudged else None
        if k < self.depth:
            self._mean[k] = (self.nudge.mean(plus, minus) if nudged else plus).to(self._product_dtype)
        if self.keep:
            self._states[k] = plus, minus

    def mean(self, k: int) -> Tensor:
        """z̄_k as the products read it."""
        mean = self._mean[k]
        return self._zeros(k) if mean is None else mean

    def drive(self, k: int) -> Tensor:
        """a_k = A_k(z̄_{k-1}), recomputed only if z̄_{k-1} has changed."""
        drive = self._drive[k]
        if drive is None:
            drive = self._drive[k] = self.layers[k - 1].synapse(self.mean(k - 1))
            self.products += 1
        return drive

    def feedback(self, k: int) -> Tensor | None:
        """d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-), recomputed only if that has changed; None is zero."""
        feedback, above = self._feedback[k], self._difference[k + 1]
        if feedback is None and above is not None:
            feedback = self._feedback[k] = self.layers[k].synapse.adjoint(above, self.mean(k))
            self.products += 1
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

    def add_grad(self) -> None:
        """Add the batch mean of (1/β_k) (z_k^- - z_k^+) z̄_{k-1}^T to `.grad`, from the top layer down.

        Frees every state once the synapses at both its sides have had it: the inference is spent.
        """
        scales = [-1 / (beta * len(self.y)) for beta in self.nudge.beta]
        deltas = [self._zeros(k) if d is None else d for k, d in enumerate(self._difference)][1:]
        means = [self.mean(k) for k in range(self.depth)]
        self._states, self._drive, self._feedback, self._mean, self._difference = [], [], [], [], []
        torch.clear_autocast_cache()  # the weights' low-precision copies have served
        for layer, scale in zip(reversed(self.layers), reversed(scales), strict=True):
            layer.synapse.add_grad(deltas.pop().mul_(scale), means.pop())

    def _zeros(self, k: int) -> Tensor:
        """The state of a layer that has never been updated."""
        shape = self.net.shapes(tuple(self.x.shape[1:]))[k]
        return self.x.new_zeros(len(self.x), *shape, dtype=self._product_dtype)
