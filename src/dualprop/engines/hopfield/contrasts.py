"""Contrasts: settled states, each with a weight, whose energies' gradients add up to that of the loss.

What makes one knows which states to compare: it is called with a batch and where its free phase has ended.
`SideBySide` is that of equilibrium propagation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.phases import Free, Phase
from dualprop.engines.hopfield.relaxation import Relaxation, Settled
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.synapses import Synapse

States = Mapping[int, Tensor]
"""A tensor for each of some layers or inputs, by number."""


@dataclass(frozen=True)
class Contrast:
    """States whose energies are contrasted: the gradient is Σ_t w_t ∂E(z^t)/∂W.

    Args:
        copies: what the rows of the states are.
        weights: w_t of every copy, complex ones counted with their conjugates.
        states: those of all copies, of the layers that settle.
        readouts: for each read-out that is no state, w_t β_t ∂ℓ/∂a at every copy.
        settled: how the phases with a target ended.
        shown: the copies that stand for the states nearer to the target and farther from it.
    """

    copies: Copies
    weights: Sequence[complex]
    states: States
    readouts: States
    settled: Settled
    shown: tuple[int, int] = (0, 1)

    def learn(self, net: HopfieldNet, inputs: States) -> None:
        """Add Σ_t w_t ∂E(z^t)/∂W to `.grad`, with ∂E/∂W_jk = -c_k z_k z_j^T, and the read-outs' gradients.

        From the top down. An input is the same in all copies, so their sum learns from it in one product.
        """
        copies, size = self.copies, len(inputs[0])
        deltas = {
            k: copies.scaled(z, [-net.weight(k) * w / size for w in self.weights]) for k, z in self.states.items()
        }
        deltas.update({k: delta / size for k, delta in self.readouts.items()})
        for k in sorted(deltas, reverse=True):
            for e in net.into[k]:
                synapse, source, _ = net.terms[e]
                if source <= 0:
                    synapse.add_grad(copies.total(deltas[k]), inputs[source])
                elif source == k:
                    _learn_loop(synapse, copies, deltas[k], self.states[k])
                else:
                    copies.on(synapse).learn(deltas[k], self.states[source])

    def side(self, net: HopfieldNet, inputs: States, copy: int) -> dict[int, Tensor]:
        """The real parts of one copy's states, of inputs and read-outs as well."""
        size = len(inputs[0])
        rows = slice(copy * size, (copy + 1) * size)
        return net.by_number({**inputs, **{k: z[rows] for k, z in self.states.items()}})


def _learn_loop(synapse: Synapse, copies: Copies, delta: Tensor, z: Tensor) -> None:
    """The gradient of ½ <δ, A(z) + A(0)>: weights meet the state at both ends, a bias at one."""
    twice, half = copies.doubled, delta / 2
    twice.on(synapse).learn(copies.beside(half, half), copies.beside(z, torch.zeros_like(z)))


class Contrasting(Protocol):
    """What makes the contrast of one batch."""

    def __call__(self, y: States, free: Free, generator: torch.Generator) -> Contrast:
        """The states to compare and their weights.

        Args:
            y: encoded targets, by output.
            free: where the free phase has ended.
            generator: of whatever is drawn.
        """


class WeightedNudge(NamedTuple):
    """A nudge and what its equilibrium counts.

    Attributes:
        beta: β_t; complex ones stand for their conjugates, too.
        weight: w_t in the gradient Σ_t w_t ∂E(z^{β_t})/∂W.
    """

    beta: complex
    weight: complex


@dataclass(frozen=True)
class Nudging:
    """The forces -β_t ∂ℓ on the outputs of every copy t.

    Args:
        losses: ℓ, by output.
        y: encoded targets of the batch.
        copies: what the rows of the states are.
        points: a nudge for each copy.
    """

    losses: Mapping[int, Loss]
    y: States
    copies: Copies
    points: Sequence[WeightedNudge]

    def __call__(self, k: int, said: Tensor) -> Tensor:
        """What is added to the drive of output k in these states; a read-out that is no state sends it down."""
        return self.copies.scaled(self._error(k, said), [-point.beta for point in self.points])

    def on_readouts(self, net: HopfieldNet, drives: States, states: States) -> dict[int, Tensor]:
        """For each read-out that is no state, w_t β_t ∂ℓ/∂a of every copy, for β ℓ is a part of the energy."""
        at = Relaxation(net, drives, states, self.copies, groups=())
        weights = [point.weight * point.beta for point in self.points]
        readouts = [k for k in self.losses if k not in net.potentials]
        return {k: self.copies.scaled(self._error(k, at.drive(k, self.y[k].dtype)), weights) for k in readouts}

    def _error(self, k: int, said: Tensor) -> Tensor:
        """∂ℓ of what every copy says."""
        loss, y = self.losses[k], self.y[k]
        return self.copies.apply(lambda z: loss.gradient(z, y.repeat(len(z) // len(y), *[1] * (y.ndim - 1))), said)


@dataclass(frozen=True)
class SideBySide:
    """Nudged phases that start at the free equilibrium, for all nudges in the same products.

    Args:
        net: that relaxes.
        losses: whose forces nudge it, by output.
        phase: for all nudges but zero, whose equilibrium is the free one.
        points: the nudges of the next batch and their weights, the real ones first.
        same_age: whether the free state goes through the phase, too: where it has not settled, what it still moves
            by is then on both sides.
    """

    net: HopfieldNet
    losses: Mapping[int, Loss]
    phase: Phase
    points: Callable[[torch.Generator], Sequence[WeightedNudge]]
    same_age: bool = False

    def __call__(self, y: States, free: Free, generator: torch.Generator) -> Contrast:
        """Contrast the phases of one batch."""
        points, size = self.points(generator), len(free.inputs[0])
        nudged = [point for point in points if point.beta or self.same_age]
        copies = Copies.of(size, [point.beta for point in nudged])
        check_complex(free.inputs[0], copies)
        nudging = Nudging(self.losses, y, copies, nudged)
        drives, start = ({k: copies.spread(z) for k, z in each.items()} for each in (free.drives, free.states))
        states, settled = self.phase.run(self.net, drives, start, copies, force=nudging)
        readouts = nudging.on_readouts(self.net, drives, states)
        if len(nudged) < len(points):  # the free equilibrium is one of two, the first or the second
            copies, way = Copies(size, 2), 1 if points[0].beta else -1
            states = {k: torch.cat([z, free.states[k]][::way]) for k, z in states.items()}
            # at which β = 0
            readouts = {k: torch.cat([z, torch.zeros_like(z)][::way]) for k, z in readouts.items()}
        return Contrast(copies, [point.weight for point in points], states, readouts, settled)


def check_complex(x: Tensor, copies: Copies) -> None:
    """Refuse inputs of a type that complex states are not made of.

    Raises:
        DualpropError: if there are complex copies, and x is neither of float32 nor of float64.
    """
    if copies.complexes and x.dtype not in (torch.float32, torch.float64):
        raise DualpropError(f"x: type {x.dtype}, but there are complex states of float32 and float64 only")
