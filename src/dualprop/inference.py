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
from dualprop.states import DyadicState


class Inference:
    """Inference on one batch, with the weights as they are.

    Args:
        net: whose layers are updated.
        loss: nudges the output layer.
        y: encoded targets, of the output's shape.
        state: where the states start; state.plus[0] is the input.

    Attributes:
        products: matrix products made so far.
        naive_products: what a loop would have made that computes both drives at every update.
    """

    def __init__(self, net: Net, loss: Loss, y: Tensor, state: DyadicState) -> None:
        self.layers = net.chain
        self.depth = len(self.layers)
        self.loss, self.y, self.nudge = loss, y, state.nudge
        self.plus, self.minus = list(state.plus), list(state.minus)
        x = state.plus[0]
        self._state_dtype, kind = x.dtype, x.device.type
        casts = torch.is_autocast_enabled(kind) and x.dtype != torch.float64  # autocast leaves float64 alone
        self._operand_dtype = torch.get_autocast_dtype(kind) if casts else x.dtype
        # What the products read: z̄_k and z_k^+ - z_k^-, the latter None where it is known to be zero.
        self._mean: list[Tensor] = []
        self._difference: list[Tensor | None] = []
        for plus, minus in zip(self.plus, self.minus, strict=True):
            mean, difference = self._operands(plus, minus)
            self._mean.append(mean)
            self._difference.append(difference)
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
            self._output = f(a)
            if forced:
                return self.loss.output_step(f, a, self.y, self.nudge.up, self.nudge.down)
            return self._output, self._output
        d = self.feedback(k)
        if d is None:
            z = f(a)
            return z, z
        return self.nudge.hidden(f, a, d, k)

    def _commit(self, k: int, plus: Tensor, minus: Tensor) -> None:
        """Write the states of layer k and tell its neighbours that their inputs have changed."""
        self.plus[k], self.minus[k] = plus, minus
        before = self._difference[k]
        self._mean[k], self._difference[k] = self._operands(plus, minus)
        if before is not None or self._difference[k] is not None:  # zero as before is no news to the layer below
            self._feedback[k - 1] = self._settled[k - 1] = None
        if k < self.depth:
            self._drive[k + 1] = self._settled[k + 1] = None

    def _operands(self, plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and difference, computed in the states' precision and rounded once to that of the products."""
        if plus is minus:
            return plus.to(self._operand_dtype), None
        mean, difference = self.nudge.mean(plus, minus), plus - minus
        return mean.to(self._operand_dtype), difference.to(self._operand_dtype)

    def drive(self, k: int) -> Tensor:
        """a_k = A_k(z̄_{k-1}), recomputed only if z̄_{k-1} has changed."""
        drive = self._drive[k]
        if drive is None:
            drive = self.layers[k - 1].synapse(self._mean[k - 1]).to(self._state_dtype)
            self._drive[k] = drive
            self.products += 1
        return drive

    def feedback(self, k: int) -> Tensor | None:
        """d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-), recomputed only if that has changed; None is zero."""
        above, feedback = self._difference[k + 1], self._feedback[k]
        if feedback is None and above is not None:
            feedback = self.layers[k].synapse.adjoint(above, self._mean[k]).to(self._state_dtype)
            self._feedback[k] = feedback
            self.products += 1
        return feedback

    @property
    def output(self) -> Tensor:
        """f_L(a_L) at the last update of layer L: what the net said before the loss nudged it."""
        if self._output is None:
            self._output = self.layers[-1].potential(self.drive(self.depth))
        return self._output

    def state(self) -> DyadicState:
        """The states as they are now."""
        return DyadicState(tuple(self.plus), tuple(self.minus), self.nudge)

    def add_grad(self) -> None:
        """Add the batch mean of (1/β_k) (z_k^- - z_k^+) z̄_{k-1}^T to `.grad`, from the top layer down.

        Frees every state once the synapses at both its sides have had it: the inference is spent.
        """
        scales = [-1 / (beta * len(self.y)) for beta in self.nudge.beta]
        del self.plus, self.minus, self._drive, self._feedback, self._output, self.y
        torch.clear_autocast_cache()  # the weights' low-precision copies have served
        for layer, scale in zip(reversed(self.layers), reversed(scales), strict=True):
            layer.synapse.add_grad(self._pop_difference().mul_(scale), self._pop_below())

    def _pop_difference(self) -> Tensor:
        """z^+ - z^- of the top layer that is left, which then has neither difference nor mean any more."""
        mean, difference = self._mean.pop(), self._difference.pop()
        return torch.zeros_like(mean) if difference is None else difference

    def _pop_below(self) -> Tensor:
        """z̄ of the layer that is now on top; the input's leaves with it, for nothing else needs it."""
        return self._mean[-1] if len(self._mean) > 1 else self._mean.pop()
