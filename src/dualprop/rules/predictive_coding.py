"""Predictive coding by equilibrium propagation: states as near to their predictions as the loss lets them be.

References:
    Kerjan, Høier, Scellier, *Training a Predictive Coding Network on ImageNet using Equilibrium Propagation*,
    arXiv 2606.03584, 2026.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Annotated, TypeVar, Unpack

import torch
from torch import Tensor

from dualprop.arguments import Count, In, Positive, Seed, checked
from dualprop.engines.states import ByLayer, State
from dualprop.errors import DivergenceError, DualpropError
from dualprop.nets.counting import by_states_alone
from dualprop.nets.devices.places import QUANTITIES
from dualprop.nets.net import Net
from dualprop.rules.backprop import Backprop
from dualprop.rules.base import AnyLoss, Rule
from dualprop.rules.equilibrium_prop import VARIANTS
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step

T = TypeVar("T")


def _in_full(
    method: Callable[[PredictiveCoding, Tensor, Tensor], T],
) -> Callable[[PredictiveCoding, Tensor, Tensor], T]:
    """Without autocast."""

    @wraps(method)
    def call(self: PredictiveCoding, x: Tensor, y: Tensor) -> T:
        with torch.autocast(x.device.type, enabled=False):
            return method(self, x, y)

    return call


class PredictiveCoding(Rule):
    """Equilibrium propagation on the energy E(z) = ½ Σ_k ‖ε_k‖² of errors ε_k = z_k - f_k(A_k(z_{k-1})).

    Free states are the feed-forward pass, where E = 0: nothing has to settle. Nudged ones start from it: T2 times
    first the even layers, then the odd ones take z_k = f_k(a_k + e_k), with e_k = J_{k+1}^T ε_{k+1}, J the
    derivative of the prediction by z_k, and e_L = -β ∇ℓ; where f_k is no projection, z_k = f_k(a_k) + e_k. The
    gradient is (∂E(z^{β2}) - ∂E(z^{β1}))/(β2 - β1) by the weights, ∂E/∂W = -f_k'(a_k) ε_k z_{k-1}^T: that of the
    loss at net(x) up to the order of β, and of β² if centred. All of it is computed without autocast, whose
    rounding of a drive is larger than most errors.

    Args:
        net: the chain to train, with symmetric feedback.
        loss: a name in `LOSSES` or a `Loss`.
        variant: "centred", "positive", "negative", or "random-sign" of one nudge, drawn for every batch.
        beta: β, positive.
        T2: steps of each nudged phase, at least 1; by default as many as there are layers.
        seed: of the random signs.

    Raises:
        DualpropError: for a value out of range, or a net or loss that does not fit.
        DivergenceError: if a nudged state is not finite.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.PredictiveCoding(dp.nets.mlp([4, 8, 3]), loss="cross_entropy")
        >>> min(dp.alignment(rule, torch.randn(5, 4), torch.randint(3, (5,))).cosine) > 0.99
        True
    """

    differentiates = True
    channelled = frozenset(QUANTITIES) - {"feedback_weights"}  # autograd goes down through what it came up by

    generator: torch.Generator

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        variant: Annotated[str, In(VARIANTS)] = "centred",
        beta: Positive = 0.05,
        T2: Count | None = None,
        seed: Seed = 0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        self.variant, self.beta, self.steps = VARIANTS[variant], beta, T2 or len(net)
        self.add_state("generator", torch.Generator().manual_seed(seed))
        self.loss.check(net.chain[-1].potential, 0.0)
        if net.feedback != "symmetric":
            raise DualpropError(f"net: its feedback is {net.feedback}, but errors come down by Wᵀ alone")

    def reference(self) -> Rule:
        """Back-propagation."""
        return Backprop(self.net, loss=self.losses)

    @_in_full
    def update(self, x: Tensor, y: Tensor) -> Step:
        """Nudged phases from the feed-forward pass, and their contrast; arguments as in `Rule.update`."""
        free, (high, low) = self._free(x), self.variant(self.beta, self.generator)
        nudged = [(sign, *self._nudged(free, y, beta)) for beta, sign in ((high, 1), (low, -1)) if beta]
        with torch.enable_grad():
            energies = [
                sign * self._energy(below, above, k) for sign, z, _ in nudged for k, below, above in _edges(z)
            ]
            contrast = torch.stack(energies).sum() / ((high - low) * len(x))
        if contrast.requires_grad:  # not if every parameter is frozen
            torch.autograd.backward(contrast)
        measures = {"nudged_steps": float(self.steps), "nudged_residual": max(moved for *_, moved in nudged)}
        return Step(self.value([free[-1]], [y]), free[-1], measures=measures)

    @_in_full
    def inference(self, x: Tensor, y: Tensor) -> State:
        """The states at both ends of the contrast; arguments as in `Rule.inference`."""
        free, betas = self._free(x), self.variant(self.beta, self.generator)
        plus, minus = (dict(enumerate(self._nudged(free, y, beta)[0])) for beta in betas)
        return State(ByLayer.of(self.net.wiring, plus), ByLayer.of(self.net.wiring, minus))

    def _free(self, x: Tensor) -> list[Tensor]:
        return [z.to(x.dtype) for z in self.net.states(x).values()]

    def _nudged(self, free: Sequence[Tensor], y: Tensor, beta: float) -> tuple[list[Tensor], float]:
        """The states at the end of a nudged phase, and the most that one moved by in its last step."""
        z, before, last = list(free), list(free), len(self.net)
        for _ in range(self.steps if beta else 0):
            before = list(z)
            for k in (*range(2, last + 1, 2), *range(1, last + 1, 2)):
                pull = self._pull(z[k], z[k + 1], k + 1) if k < last else -beta * self.loss.gradient(z[k], y)
                f, a = self.net.chain[k - 1].potential, self.net.chain[k - 1].synapse(z[k - 1]).to(pull.dtype)
                z[k] = f(a + pull) if f.projects else f(a) + pull
        moved = [float((now - then).abs().max()) for now, then in zip(z, before, strict=True)]
        if not all(map(math.isfinite, moved)):
            raise DivergenceError(f"the nudged phase diverged within {self.steps} steps: NaN or infinite states")
        return z, max(moved)

    def _pull(self, below: Tensor, above: Tensor, k: int) -> Tensor:
        """J_k^T ε_k, what the error of layer k asks of the one below: by a graph that spans its synapse alone."""
        with torch.enable_grad(), by_states_alone():
            below = below.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._energy(below, above, k), below)
        return -slope

    def _energy(self, below: Tensor, above: Tensor, k: int) -> Tensor:
        """½ ‖ε_k‖², summed over the samples."""
        said: Tensor = self.net.chain[k - 1](below)
        return (above - said.to(above.dtype)).square().sum() / 2


def _edges(z: Sequence[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Layers by number, the state below each and its own."""
    return zip(range(1, len(z)), z, z[1:], strict=False)
