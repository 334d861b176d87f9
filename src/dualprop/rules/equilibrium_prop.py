"""Equilibrium propagation: a free equilibrium and nudged ones of a layered Hopfield net.

References:
    Scellier, Bengio, *Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation*,
    Frontiers in Computational Neuroscience 2017. Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz,
    *Scaling Equilibrium Propagation to Deep ConvNets*, Front. Neurosci. 2021 (centred, soft-max read-out).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Unpack

import torch

from dualprop.arguments import Count, In, NotNegative, Positive, Seed, checked
from dualprop.engines.hopfield.contrasts import SideBySide, WeightedNudge
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.errors import DualpropError
from dualprop.nets.losses import SquaredError
from dualprop.nets.net import Net
from dualprop.nets.potentials import Linear
from dualprop.registry import Registry
from dualprop.rules.base import AnyLoss
from dualprop.rules.relaxing import Order, Relaxing
from dualprop.rules.standing import Channels

Variant = Callable[[float, torch.Generator], tuple[float, float]]
"""From β to the two nudges whose equilibria are contrasted, the higher first."""


DRIFT = 0.1
"""Of β: the most that the free states may move by in a nudged phase and not be warned of."""


def _positive(beta: float, generator: torch.Generator) -> tuple[float, float]:
    return beta, 0.0


def _negative(beta: float, generator: torch.Generator) -> tuple[float, float]:
    return 0.0, -beta


def _centred(beta: float, generator: torch.Generator) -> tuple[float, float]:
    return beta, -beta


def _random_sign(beta: float, generator: torch.Generator) -> tuple[float, float]:
    return (beta, 0.0) if bool(torch.randint(2, (), generator=generator)) else (0.0, -beta)


VARIANTS: Registry[Variant] = Registry(
    "variant",
    {
        "positive": _positive,
        "negative": _negative,
        "random-sign": _random_sign,
        "centred": _centred,
    },
)


def read_out(rule: Relaxing, beta: float) -> HopfieldNet:
    """The net as it relaxes, logits read out of it, to be nudged with a strength |β|.

    Raises:
        DualpropError: where z_L <- a_L - β (z_L - y) runs away: for β of 1 or more where the squared error nudges
            a linear output.
    """
    hopfield = HopfieldNet(rule.net, readouts=rule.logits)
    for k, loss in rule.by_output.items():
        if beta >= 1 and isinstance(loss, SquaredError) and rule.net.stack[k - 1].potential == Linear():
            raise DualpropError(f"beta={beta!r}: must be below 1 for the squared error of a linear output")
    return hopfield


def _two_points(variant: Variant, beta: float, generator: torch.Generator) -> list[WeightedNudge]:
    high, low = variant(beta, generator)
    return [WeightedNudge(high, 1 / (high - low)), WeightedNudge(low, -1 / (high - low))]


class EquilibriumProp(Relaxing):
    """Equilibrium propagation on the layered Hopfield energy of the net's own synapses and potentials.

    States settle at z_k = f_k(A_k(z_{k-1}) + A_{k+1}^T z_{k+1}), a stationary point of
    E(z) = Σ_k G_k(z_k) - z_k·A_k(z_{k-1}), freely (T1 steps from zero, which is the prediction) and nudged, at
    that of E + βℓ (T2 steps from there). The gradient is the contrast (∂E(z^{β2}) - ∂E(z^{β1}))/(β2 - β1) by W:
    with (β2, β1) = (β, 0) or (0, -β) its error is of the order of β, with (β, -β) of β². It is the gradient of
    the loss at the free equilibrium, which is not the feed-forward net's output.

    On a graph every edge j → k is a term -z_k·A(z_j), felt at both ends, and a tied pair is one. Edges both ways
    between two layers are such a pair; a loop has symmetric weights, -z·W z/2. Each output has a loss.

    Squared error nudges the output's states by -β(z_L - y), as every loss of the states does by its gradient.
    Cross-entropy is read out outside the dynamics (Laborieux 2021, section 2.3): ℓ(A_L(z_{L-1})) nudges layer L-1,
    unless the net has edges out of that output, which make it a state.

    Args:
        net: the net to train; its potentials should be bounded, for example "hard-sigmoid".
        loss: a name in `LOSSES` or a `Loss`.
        variant: "positive", "negative", "random-sign" (of either, drawn for every batch) or "centred".
        beta: β, positive; below 1 for the squared error of a linear output.
        T1: steps of the free phase, at least 1.
        T2: steps of the nudged phases, at least 1; both signs relax in the same products.
        same_age: whether the free state, too, relaxes T2 steps further before it is contrasted with a nudged one:
            then an unsettled free phase spoils the gradient less. The centred variant contrasts no free state.
        order: of the updates in a step: "even-odd" (layers 1, 3, 5.. then 2, 4..), "forward" or "backward", under
            which the energy never rises in the free phase unless there are pools; or "synchronous", as in the
            papers' code, which takes more steps and may swing where the others settle.
        warm: whether the free phase starts where the batch before ended it, slot by slot.
        tolerance: a phase ends early once no state moves by more than this in a step; at 0 where none moves.
        seed: of the random signs.

    Raises:
        DualpropError: for a value out of range, or a net or loss that does not fit.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3], "hard-sigmoid")
        >>> rule = dp.EquilibriumProp(net, variant="centred", T1=30, T2=10, beta=0.1)
        >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> step.measures["free_residual"] < 1e-3
        True
    """

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        variant: Annotated[str, In(VARIANTS)] = "positive",
        beta: Positive = 0.1,
        T1: Count = 30,
        T2: Count = 10,
        same_age: bool = False,
        order: Order = "even-odd",
        warm: bool = False,
        tolerance: NotNegative = 0.0,
        seed: Seed = 0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(
            net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, seed=seed, **channels
        )
        self.beta, self.variant = beta, VARIANTS[variant]
        hopfield, points = read_out(self, beta), partial(_two_points, self.variant, self.beta)
        nudged = self.phase("nudged", T2, hopfield)
        self.compose(hopfield, SideBySide(hopfield, self.by_output, nudged, points, same_age))
        if not same_age and 0.0 in self.variant(beta, torch.Generator()):
            self.still = DRIFT * beta / T2
            self.remedy = "more steps, or same_age=True"
