"""Contrasts: settled states, each with a weight, whose energies' gradients add up to that of the loss.

What makes one knows which states to compare: it is called with a batch and where its free phase has ended.
`SideBySide` is that of equilibrium propagation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import CopiedSynapse, Copies
from dualprop.engines.hopfield.phases import Free, HopfieldNet, Phase
from dualprop.engines.hopfield.relaxation import Settled
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.synapses import product_dtype


@dataclass(frozen=True)
class Contrast:
    """States whose energies are contrasted: the gradient is Σ_t w_t ∂E(z^t)/∂W.

    Args:
        copies: what the rows of the states are.
        weights: w_t of every copy, complex ones counted with their conjugates.
        states: z_1 .. z_M of all copies.
        readout: for a read-out that is no state, w_t β_t ∂ℓ/∂a_L at every copy.
        settled: how the phases with a target ended.
        shown: the copies that stand for the states nearer to the target and farther from it.
    """

    copies: Copies
    weights: Sequence[complex]
    states: Sequence[Tensor]
    readout: Tensor | None
    settled: Settled
    shown: tuple[int, int] = (0, 1)

    def learn(self, net: HopfieldNet, x: Tensor) -> None:
        """Add Σ_t w_t ∂E(z^t)/∂W to `.grad`, with ∂E/∂W_k = -γ^{k-M} z_k z_{k-1}^T, and the read-out's gradient.

        From the top down. The input is the same in all copies, so their sum learns from it in one product.
        """
        copies, below, depth = self.copies, [x, *self.states], len(net.layers)
        deltas = [
            copies.scaled(z, [-(net.gain ** (k - depth)) * w / len(x) for w in self.weights])
            for k, z in enumerate(self.states, 1)
        ]
        if self.readout is not None:
            deltas.append(self.readout / len(x))
        for k in range(len(deltas), 0, -1):
            synapse = net.synapses[k - 1]
            if k == 1:
                synapse.add_grad(copies.total(deltas[0]), x)
            else:
                copies.on(synapse).learn(deltas[k - 1], below[k - 1])

    def side(self, net: HopfieldNet, x: Tensor, copy: int) -> tuple[Tensor, ...]:
        """The real parts of one copy's states, the input first, a read-out that is no state last."""
        rows = slice(copy * len(x), (copy + 1) * len(x))
        states = [z[rows] for z in self.states]
        return (x, *states, *([net.output(x, states)] if net.reads_out else []))


class Contrasting(Protocol):
    """What makes the contrast of one batch."""

    def __call__(self, x: Tensor, y: Tensor, free: Free, generator: torch.Generator) -> Contrast:
        """The states to compare and their weights.

        Args:
            x: inputs, shape (B, ...).
            y: encoded targets.
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
class Force:
    """The force -β_t ∂ℓ on the last layer that relaxes, of every copy t; called with its states z_M.

    It acts on the states themselves, or is sent down through the weights of a read-out.

    Args:
        net: that relaxes.
        loss: ℓ, of the output.
        y: encoded targets of the batch.
        copies: what the rows of the states are.
        points: a nudge for each copy.
    """

    net: HopfieldNet
    loss: Loss
    y: Tensor
    copies: Copies
    points: Sequence[WeightedNudge]

    def __call__(self, z: Tensor) -> Tensor:
        """What is added to the drives of z_M."""
        pulls = [-point.beta for point in self.points]
        if self._readout is None:
            return self.copies.scaled(self._error(z), pulls)
        p, linearised = self._readout.linearise(z.to(product_dtype(z)))
        error = self._error(self._readout.drive(p).to(z.dtype))
        return self._readout.down(self.copies.scaled(error, pulls).to(p.dtype), linearised)

    @cached_property
    def _readout(self) -> CopiedSynapse | None:
        return None if self.net.readout is None else self.copies.on(self.net.readout)

    def on_readout(self, x: Tensor, states: Sequence[Tensor]) -> Tensor | None:
        """w_t β_t ∂ℓ/∂a_L of every copy, for β ℓ is a part of the energy; None without a read-out."""
        if self.net.readout is None:
            return None
        readout, z = self.copies.on(self.net.readout), states[-1] if states else self.copies.spread(x)
        output = readout.drive(readout.linearise(z.to(product_dtype(z)))[0]).to(z.dtype)
        return self.copies.scaled(self._error(output), [point.weight * point.beta for point in self.points])

    def _error(self, output: Tensor) -> Tensor:
        """∂ℓ of every copy's output."""
        y = self.y
        return self.copies.apply(
            lambda z: self.loss.gradient(z, y.repeat(len(z) // len(y), *[1] * (y.ndim - 1))), output
        )


@dataclass(frozen=True)
class SideBySide:
    """Nudged phases that start at the free equilibrium, for all nudges in the same products.

    Args:
        net: that relaxes.
        loss: whose force nudges it.
        phase: for all nudges but zero, whose equilibrium is the free one.
        points: the nudges of the next batch and their weights, the real ones first.
    """

    net: HopfieldNet
    loss: Loss
    phase: Phase
    points: Callable[[torch.Generator], Sequence[WeightedNudge]]

    def __call__(self, x: Tensor, y: Tensor, free: Free, generator: torch.Generator) -> Contrast:
        """See `Contrasting`."""
        points = self.points(generator)
        nudged = [point for point in points if point.beta]
        copies = Copies.of(len(x), [point.beta for point in nudged])
        check_complex(x, copies)
        force = Force(self.net, self.loss, y, copies, nudged)
        drive = None if free.drive is None else copies.spread(free.drive)
        start = [copies.spread(z) for z in free.states]
        states, settled = self.phase.run(self.net, drive, start, copies, force=force)
        readout = force.on_readout(x, states)
        if len(nudged) < len(points):  # the free equilibrium is one of two, the first or the second
            copies, way = Copies(len(x), 2), 1 if points[0].beta else -1
            states = [torch.cat([z, at_rest][::way]) for z, at_rest in zip(states, free.states, strict=True)]
            if readout is not None:  # at which β = 0
                readout = torch.cat([readout, torch.zeros_like(readout)][::way])
        return Contrast(copies, [point.weight for point in points], states, readout, settled)


def check_complex(x: Tensor, copies: Copies) -> None:
    """Refuse inputs of a type that complex states are not made of.

    Raises:
        DualpropError: if there are complex copies, and x is neither of float32 nor of float64.
    """
    if copies.complexes and x.dtype not in (torch.float32, torch.float64):
        raise DualpropError(f"x: type {x.dtype}, but there are complex states of float32 and float64 only")
