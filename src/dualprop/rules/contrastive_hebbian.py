"""Contrastive Hebbian learning: a free phase, and one with the output clamped to the target.

References:
    Xie, Seung, *Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network*, Neural
    Computation 2003. Movellan, *Contrastive Hebbian Learning in the Continuous Hopfield Model*, 1991.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from dualprop.arguments import Count, NotNegative, Positive, PositivePortion, checked
from dualprop.engines.hopfield.contrasts import Contrast, States
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.phases import Free, Phase
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.rules.base import AnyLoss
from dualprop.rules.relaxing import Order, Relaxing
from dualprop.rules.standing import Channels


@dataclass(frozen=True)
class Clamped:
    """A phase from the free states with every output held at ž - β ∂ℓ, contrasted with them.

    Args:
        net: that relaxes.
        losses: ℓ, whose gradients say where the outputs are held, by output.
        phase: of all other layers.
        beta: β, how far.
    """

    net: HopfieldNet
    losses: Mapping[int, Loss]
    phase: Phase
    beta: float

    def __call__(self, y: States, free: Free, generator: torch.Generator) -> Contrast:
        """Contrast the phases of one batch."""
        size, start = len(free.inputs[0]), dict(free.states)
        for k, loss in self.losses.items():
            output = free.outputs[k]  # of soft-max neurons the drives: what they would say next
            said = self.net.potentials[k](output) if k in self.net.readouts else output
            start[k] = said - self.beta * loss.gradient(output, y[k])
        others = [[k for k in group if k not in self.losses] for group in self.phase.groups]
        phase = replace(self.phase, groups=others)
        states, settled = phase.run(self.net, free.drives, start, Copies(size, 1))
        both = {k: torch.cat([z, free.states[k]]) for k, z in states.items()}
        return Contrast(Copies(size, 2), [1 / self.beta, -1 / self.beta], both, {}, settled)


def _check_levels(net: HopfieldNet) -> None:
    """Refuse a net through which feedback does not come down from the outputs, level by level.

    Raises:
        DualpropError: naming an edge that closes a cycle with no tied partner, or an output that drives a layer.
    """
    wiring = net.net.wiring
    for term in net.terms:
        source, target = term.source, term.target
        arrow = f"{wiring.name(source)} -> {wiring.name(target)}"
        if source > target:
            raise DualpropError(
                f"net: edge {arrow} closes a cycle, in which ContrastiveHebbian's feedback would gain; "
                "edges down must be tied to those up"
            )
        if source in wiring.outputs and not term.loop:
            raise DualpropError(
                f"net: edge {arrow}: ContrastiveHebbian clamps outputs, so that no error comes down to "
                f"{wiring.name(source)} from other layers"
            )


class ContrastiveHebbian(Relaxing):
    """Contrastive Hebbian learning in a layered net with weak feedback, after Xie and Seung.

    States settle at z_k = f_k(A_k(z_{k-1}) + γ A_{k+1}^T z_{k+1}), first with a free output (ž), then with the
    output clamped (ẑ). The gradient of W into layer k is γ^{k-L} (ž_k ž_{k-1}^T - ẑ_k ẑ_{k-1}^T)/β, whose error
    against back-propagation's is of the order of γ. Cross-entropy has soft-max output neurons.

    The output is clamped to ž_L - β ∂ℓ, that is ž_L + β (y - ž_L) for squared error and cross-entropy: β = 1 is
    the hard clamp to the target, less is a nudge on the way there (coupled learning).

    On a graph without cycles but tied pairs and symmetric loops, feedback from layer m to k comes with
    γ^{r_k - r_m}, where r is the longest way up, and outputs drive no other layers.

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
        loss: AnyLoss = "mse",
        gamma: Positive = 0.1,
        beta: PositivePortion = 1.0,
        T1: Count = 20,
        T2: Count = 20,
        order: Order = "forward",
        warm: bool = False,
        tolerance: NotNegative = 0.0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, **channels)
        logits, losses = self.logits, self.by_output
        neurons = {k: each.link for k, each in losses.items() if k in logits and each.link is not None}
        hopfield = HopfieldNet(self.net, logits, neurons, gain=gamma)
        _check_levels(hopfield)
        longest = max(hopfield.ranks.values())
        if gamma**longest < 1e-30:  # what the lowest layer's difference is divided by
            raise DualpropError(f"gamma={gamma!r}: too small for {longest + 1} layers")
        self.beta = beta
        clamped = self.phase("clamped", T2, hopfield)
        self.compose(hopfield, Clamped(hopfield, losses, clamped, self.beta))
