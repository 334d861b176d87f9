"""Contrastive Hebbian learning: a free phase, and one with the output clamped to the target.

References:
    Xie, Seung, *Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network*, Neural
    Computation 2003. Movellan, *Contrastive Hebbian Learning in the Continuous Hopfield Model*, 1991.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Positive, PositivePortion, checked
from dualprop.engines.hopfield.contrasts import Contrast
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.phases import Free, HopfieldNet, Phase
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss, LossOrName
from dualprop.nets.net import Layer, Net
from dualprop.rules.relaxing import Order, Relaxing


@dataclass(frozen=True)
class Clamped:
    """A phase from the free states with the output held at ž_L - β ∂ℓ, contrasted with them.

    Args:
        net: that relaxes.
        loss: ℓ, whose gradient says where the output is held.
        phase: of the layers below.
        beta: β, how far.
    """

    net: HopfieldNet
    loss: Loss
    phase: Phase
    beta: float

    def __call__(self, x: Tensor, y: Tensor, free: Free, generator: torch.Generator) -> Contrast:
        """See `Contrasting`."""
        output, link = free.output, self.loss.link
        said = output if link is None else link(output)  # of soft-max neurons: what they would say next
        clamped = said - self.beta * self.loss.gradient(output, y)
        below = [[k for k in group if k < len(self.net.layers)] for group in self.phase.groups]
        start = [*free.states[:-1], clamped]
        states, settled = replace(self.phase, groups=below).run(self.net, free.drive, start, Copies(len(x), 1))
        both = [torch.cat(pair) for pair in zip(states, free.states, strict=True)]
        return Contrast(Copies(len(x), 2), [1 / self.beta, -1 / self.beta], both, None, settled)


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
        beta: how far the output is clamped, in (0, 1]; 1 clamps it to the target.
        T1: steps of the free phase, at least 1.
        T2: steps of the clamped phase, at least 1.
        order: of the updates in a step, a name in `ORDERS` (see `EquilibriumProp`).
        warm: whether the free phase starts where the batch before ended it, slot by slot.
        tolerance: a phase ends early once no state moves by more than this in a step; at 0 where none moves.

    Raises:
        DualpropError: for a value out of range.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 8, 3], "sigmoid")
        >>> rule = dp.ContrastiveHebbian(net, gamma=0.01)
        >>> min(dp.alignment(rule, torch.randn(5, 4), torch.randint(3, (5,))).cosine) > 0.99
        True
    """

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: LossOrName = "mse",
        gamma: Positive = 0.1,
        beta: PositivePortion = 1.0,
        T1: Count = 20,
        T2: Count = 20,
        order: Order = "forward",
        warm: bool = False,
        tolerance: NotNegative = 0.0,
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance)
        if gamma ** (len(net) - 1) < 1e-30:  # what the lowest layer's difference is divided by
            raise DualpropError(f"gamma={gamma!r}: too small for {len(net)} layers")
        self.beta, chain, link = beta, net.chain, self.loss.link
        hopfield = HopfieldNet(chain, gain=gamma)
        if link is not None:
            neurons = Layer(chain[-1].synapse, link)
            hopfield = HopfieldNet([*chain[:-1], neurons], neurons.synapse, gain=gamma)
        phase = self.phase("clamped", T2, len(chain))
        self.compose(hopfield, Clamped(hopfield, self.loss, phase, self.beta))
