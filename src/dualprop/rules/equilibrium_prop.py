"""Equilibrium propagation: a free equilibrium and nudged ones of a layered Hopfield net.

References:
    Scellier, Bengio, *Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation*,
    Frontiers in Computational Neuroscience 2017. Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz,
    *Scaling Equilibrium Propagation to Deep ConvNets*, Front. Neurosci. 2021 (centred, soft-max read-out).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.relaxation import Relaxation
from dualprop.errors import DualpropError, positive
from dualprop.nets.losses import Loss, SquaredError
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials import Box
from dualprop.nets.synapses import product_dtype
from dualprop.registry import Registry
from dualprop.rules.relaxing import Contrast, Free, Relaxing


class Point(NamedTuple):
    """A nudge and what its equilibrium counts.

    Attributes:
        beta: β_t; complex ones stand for their conjugates, too.
        weight: w_t in the gradient Σ_t w_t ∂E(z^{β_t})/∂W.
    """

    beta: complex
    weight: complex


class Nudging(Relaxing):
    """A rule whose nudged phases start at the free equilibrium, under the force -β_t ∂ℓ, for several β_t at once.

    The force acts on the last layer's states. A loss with a `link`, such as cross-entropy, reads the net out: the
    last layer is then no state, it must be linear, and the force is sent down through its weights.
    """

    @abstractmethod
    def _points(self) -> list[Point]:
        """The nudges of the next batch, the real ones first."""

    def _check_strength(self, beta: float) -> None:
        """Refuse a strength |β| at which z_L <- a_L - β (z_L - y) runs away."""
        positive(beta=beta)
        if beta >= 1 and isinstance(self.loss, SquaredError) and self.net.chain[-1].potential == Box():
            raise DualpropError(f"beta={beta!r}: must be below 1 for the squared error of a linear output")

    def _relaxing(self) -> Sequence[Layer]:
        return self.net.chain if self.loss.link is None else self.net.chain[:-1]

    def _output(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        top = states[-1] if states else x
        return top if self.loss.link is None else self._drives(Copies(len(x), 1), top)

    def _contrast(self, x: Tensor, y: Tensor, free: Free) -> Contrast:
        points = self._points()
        nudged = [point for point in points if point.beta]
        copies = Copies.of(len(x), [point.beta for point in nudged])
        relaxation = self._nudged(y, copies, nudged, free.drive, [copies.spread(z) for z in free.states])
        settled = relaxation.run(self.T2, self.tolerance, "nudged")
        states = relaxation.z
        readout = self._readout_gradient(x, y, copies, nudged, states)
        if len(nudged) < len(points):  # the free equilibrium is one of two, the first or the second
            copies, way = Copies(len(x), 2), 1 if points[0].beta else -1
            states = [torch.cat([z, at_rest][::way]) for z, at_rest in zip(states, free.states, strict=True)]
            if readout is not None:  # at which β = 0
                readout = torch.cat([readout, torch.zeros_like(readout)][::way])
        weights = [point.weight for point in points]
        return Contrast(copies, weights, states, readout, settled)

    def _nudged(
        self,
        y: Tensor,
        copies: Copies,
        points: Sequence[Point],
        drive: Tensor | None,
        states: Sequence[Tensor],
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> Relaxation:
        """The relaxation of these copies, each under its own nudge."""
        pulls = [-point.beta for point in points]

        def inside(z: Tensor) -> Tensor:
            return copies.scaled(self._error(y, copies, z), pulls)

        strand = copies.on(self.net.chain[-1].synapse)

        def outside(z: Tensor) -> Tensor:
            p, seen = strand.see(z.to(product_dtype(z)))
            error = self._error(y, copies, strand.drive(p).to(z.dtype))
            return strand.down(copies.scaled(error, pulls).to(p.dtype), seen)

        force = inside if self.loss.link is None else outside
        drive = None if drive is None else copies.spread(drive)
        return self._relaxation(drive, states, copies, force=force, noise=noise)

    def _error(self, y: Tensor, copies: Copies, output: Tensor) -> Tensor:
        """∂ℓ of every copy's output."""
        return copies.apply(
            lambda z: self.loss.gradient(z, y.repeat(len(z) // len(y), *[1] * (y.ndim - 1))), output
        )

    def _drives(self, copies: Copies, z: Tensor) -> Tensor:
        """What the last layer reads out of the states below it."""
        strand = copies.on(self.net.chain[-1].synapse)
        return strand.drive(strand.see(z.to(product_dtype(z)))[0]).to(z.dtype)

    def _readout_gradient(
        self, x: Tensor, y: Tensor, copies: Copies, points: Sequence[Point], states: Sequence[Tensor]
    ) -> Tensor | None:
        """w_t β_t ∂ℓ/∂a_L of every copy, if there is a read-out: β ℓ is a part of the energy."""
        if self.loss.link is None:
            return None
        top = states[-1] if states else copies.spread(x)
        error = self._error(y, copies, self._drives(copies, top))
        return copies.scaled(error, [point.weight * point.beta for point in points])


Variant = Callable[[float, torch.Generator], tuple[float, float]]
"""From β to the two nudges whose equilibria are contrasted, the higher first."""


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


class EquilibriumProp(Nudging):
    """Equilibrium propagation on the layered Hopfield energy of the net's own synapses and potentials.

    States settle at z_k = f_k(A_k(z_{k-1}) + A_{k+1}^T z_{k+1}), a stationary point of
    E(z) = Σ_k G_k(z_k) - z_k·A_k(z_{k-1}), freely (T1 steps from zero, which is the prediction) and nudged, at
    that of E + βℓ (T2 steps from there). The gradient is the contrast (∂E(z^{β2}) - ∂E(z^{β1}))/(β2 - β1) by W:
    with (β2, β1) = (β, 0) or (0, -β) its error is of the order of β, with (β, -β) of β². It is the gradient of
    the loss at the free equilibrium, which is not the feed-forward net's output.

    Squared error nudges the output's states by -β(z_L - y), as every loss of the states does by its gradient.
    Cross-entropy is read out outside the dynamics (Laborieux 2021, section 2.3): ℓ(A_L(z_{L-1})) nudges layer L-1.

    Args:
        net: the net to train; its potentials should be bounded, for example "hard-sigmoid".
        loss: a name in `LOSSES` or a `Loss`.
        variant: "positive", "negative", "random-sign" (of either, drawn for every batch) or "centred".
        beta: β, positive; below 1 for the squared error of a linear output.
        T1: steps of the free phase, at least 1.
        T2: steps of the nudged phases, at least 1; both signs relax in the same products.
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

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | str = "mse",
        variant: str = "positive",
        beta: float = 0.1,
        T1: int = 30,
        T2: int = 10,
        order: str = "even-odd",
        warm: bool = False,
        tolerance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, seed=seed)
        self._check_strength(beta)
        self.beta, self.variant = float(beta), VARIANTS[variant]

    def _points(self) -> list[Point]:
        high, low = self.variant(self.beta, self.generator)
        return [Point(high, 1 / (high - low)), Point(low, -1 / (high - low))]
