"""Contrastive Hebbian learning: a free phase, and one with the output clamped to the target.

References:
    Xie, Seung, *Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network*, Neural
    Computation 2003. Movellan, *Contrastive Hebbian Learning in the Continuous Hopfield Model*, 1991.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.errors import DualpropError, positive
from dualprop.nets.losses import Loss
from dualprop.nets.net import Layer, Net
from dualprop.rules.relaxing import Contrast, Free, Relaxing


class ContrastiveHebbian(Relaxing):
    """Contrastive Hebbian learning in a layered net with weak feedback, after Xie and Seung.

    States settle at z_k = f_k(A_k(z_{k-1}) + γ A_{k+1}^T z_{k+1}), first with a free output (ž), then with the
    output clamped (ẑ). The gradient of W into layer k is γ^{k-L} (ž_k ž_{k-1}^T - ẑ_k ẑ_{k-1}^T)/β, whose error
    against back-propagation's is of the order of γ. Cross-entropy has soft-max output neurons.

    The output is clamped to ž_L - β ∂ℓ, that is ž_L + β (y - ž_L) for squared error and cross-entropy: β = 1 is
    the hard clamp to the target, less is a nudge on the way there (coupled learning).

    Differences at layer k are of the size γ^{L-k}: in float32 a deep net needs a γ that is not too small.

    Args:
        net: the net to train.
        loss: a name in `LOSSES` or a `Loss`.
        gamma: γ, the gain of the feedback, positive.
        beta: how far the output is clamped, in (0, 1].
        T1: steps of the free phase, at least 1.
        T2: steps of the clamped phase, at least 1.
        order: of the updates, as in `EquilibriumProp`.
        warm: as there.
        tolerance: as there.

    Raises:
        DualpropError: for a value out of range.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 8, 3], "sigmoid")
        >>> rule = dp.ContrastiveHebbian(net, gamma=0.01)
        >>> min(dp.alignment(rule, torch.randn(5, 4), torch.randint(3, (5,))).cosine) > 0.99
        True
    """

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | str = "mse",
        gamma: float = 0.1,
        beta: float = 1.0,
        T1: int = 20,
        T2: int = 20,
        order: str = "forward",
        warm: bool = False,
        tolerance: float = 0.0,
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance)
        positive(gamma=gamma, beta=beta)
        if beta > 1:
            raise DualpropError(f"beta={beta!r}: must be in (0, 1]; 1 clamps the output to the target")
        if gamma ** (len(net) - 1) < 1e-30:  # what the lowest layer's difference is divided by
            raise DualpropError(f"gamma={gamma!r}: too small for {len(net)} layers")
        self.gain, self.beta = float(gamma), float(beta)

    def _relaxing(self) -> Sequence[Layer]:
        chain = self.net.chain
        if self.loss.link is None:
            return chain
        return [*chain[:-1], Layer(chain[-1].synapse, self.loss.link)]

    def _output(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        if self.loss.link is None:
            return states[-1]
        below = states[-2] if len(states) > 1 else x
        output: Tensor = self.net.chain[-1].synapse(below)
        return output

    def _scale(self, k: int) -> float:
        return float(self.gain ** (k - len(self.layers)))

    def _contrast(self, x: Tensor, y: Tensor, free: Free) -> Contrast:
        output, link = free.output, self.loss.link
        said = output if link is None else link(output)  # of soft-max neurons: what they would say next
        clamped = said - self.beta * self.loss.gradient(output, y)
        groups = [[k for k in group if k < len(self.layers)] for group in self.groups]
        start = [*free.states[:-1], clamped]
        relaxation = self._relaxation(free.drive, start, Copies(len(x), 1), groups=groups)
        settled = relaxation.run(self.T2, self.tolerance, "clamped")
        states = [torch.cat(pair) for pair in zip(relaxation.z, free.states, strict=True)]
        weights = [1 / self.beta, -1 / self.beta]
        return Contrast(Copies(len(x), 2), weights, states, None, settled)
