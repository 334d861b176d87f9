"""Free equilibria, and what the loss there asks of every layer: implicit differentiation, layer by layer.

At a free equilibrium z_k = F_k(z) for every layer k, so that a loss ℓ(z) there has the gradient
∂ℓ/∂θ + Σ_k λ_k ∂F_k/∂θ with multipliers λ_k = ∂ℓ/∂z_k + Σ_m λ_m ∂F_m/∂z_k.

References:
    Almeida, *A learning rule for asynchronous perceptrons with feedback in a combinatorial environment*, 1987.
    Pineda, *Generalization of back-propagation to recurrent neural networks*, Physical Review Letters 1987.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.phases import Phase
from dualprop.engines.hopfield.relaxation import ORDERS
from dualprop.engines.states import ByLayer
from dualprop.errors import DivergenceError
from dualprop.nets.counting import by_states_alone
from dualprop.nets.net import Inputs, Net
from dualprop.nets.synapses import frozen_weights

States = Mapping[int, Tensor]
"""States by the numbers of layers and inputs; layers count from 1."""


class Equilibrium(Protocol):
    """A net whose states settle."""

    @property
    def layers(self) -> Sequence[int]:
        """The numbers of the layers that settle."""

    @property
    def damping(self) -> float:
        """λ in [0, 1), the part of its old state that a layer keeps in a sweep."""

    @property
    def sweeps(self) -> int:
        """How many sweeps may pass until all has settled."""

    def settled(self, x: Inputs) -> dict[int, Tensor]:
        """The free states z of layers and inputs.

        Raises:
            DivergenceError: if they do not settle.
        """

    def reads(self, k: int) -> list[int]:
        """The layers whose states F_k may read."""

    def updated(self, k: int, z: States) -> Tensor:
        """F_k(z), differentiable by autograd."""

    def outputs(self, z: States) -> list[Tensor]:
        """What the net says in these states, differentiable by autograd."""

    def by_layer(self, z: States) -> tuple[Tensor, ...]:
        """z_0 .. z_L."""


@dataclass(frozen=True)
class OfGraph:
    """The equilibrium of a net as it is wired: F_k(z) = f_k(Σ_j A_jk(z_j)).

    Args:
        net: any; without cycles its equilibrium is the feed-forward pass.
    """

    net: Net

    @property
    def layers(self) -> Sequence[int]:
        """All, 1..L."""
        return range(1, len(self.net) + 1)

    @property
    def damping(self) -> float:
        """The net's."""
        return self.net.damping

    @property
    def sweeps(self) -> int:
        """The net's."""
        return self.net.sweeps

    def settled(self, x: Inputs) -> dict[int, Tensor]:
        """See `Net.states`; in the type of the inputs."""
        torch.clear_autocast_cache()  # an optimizer may have changed the weights inside one autocast context
        return {k: z.to(self.net.inputs(x)[0].dtype) for k, z in self.net.states(x).items()}

    def reads(self, k: int) -> list[int]:
        """The layers at the lower ends of its edges."""
        return sorted({j for j in self._sources(k) if j > 0})

    def updated(self, k: int, z: States) -> Tensor:
        """The layer's own forward pass."""
        new: Tensor = self.net.stack[k - 1](*(z[j] for j in self._sources(k)))
        return new.to(z[k].dtype)

    def outputs(self, z: States) -> list[Tensor]:
        """The states of the layers that have a loss."""
        return [z[k] for k in self.net.wiring.outputs]

    def by_layer(self, z: States) -> tuple[Tensor, ...]:
        """By name as well."""
        return ByLayer.of(self.net.wiring, z)

    def _sources(self, k: int) -> list[int]:
        wiring = self.net.wiring
        return [wiring.edges[e][0] for e in wiring.into[k]]


@dataclass(frozen=True)
class OfHopfield:
    """That of a net read as a Hopfield net: F_k(z) = f_k(Σ_{j→k} A_jk(z_j) + Σ_{k→m} γ A_km^T z_m).

    Args:
        hopfield: the layers that relax, the gain γ of the feedback and what is read out; with symmetric weights.
        sweeps: steps in which the states may settle.
        tolerance: they have, once none moves by more than this in a step (if larger than 1, relative to the
            largest).
    """

    hopfield: HopfieldNet
    sweeps: int
    tolerance: float

    damping = 0.0

    @property
    def layers(self) -> Sequence[int]:
        """All but read-outs that are no states."""
        return list(self.hopfield.potentials)

    @torch.no_grad()
    def settled(self, x: Inputs) -> dict[int, Tensor]:
        """The end of a free phase from zero."""
        hopfield, inputs = self.hopfield, self.hopfield.net.inputs(x)
        phase = Phase("free", self.sweeps, ORDERS["even-odd"](hopfield.neighbours), self.tolerance)
        with frozen_weights(hopfield.net.synapses):
            copies = Copies(len(inputs[0]), 1)
            states, end = phase.run(hopfield, hopfield.drives(inputs), hopfield.zeros(inputs), copies)
        if end.residual > self.tolerance * max([1.0, *(float(z.abs().max()) for z in states.values())]):
            raise DivergenceError(
                f"the free states do not settle within {self.sweeps} steps: "
                f"they still move by {end.residual:.3g}, but the tolerance is {self.tolerance:g}"
            )
        return {**inputs, **states}

    def reads(self, k: int) -> list[int]:
        """The layers beside it, and its own, where the feedback depends on how its state is pooled."""
        return sorted({k, *self.hopfield.neighbours[k]})

    def updated(self, k: int, z: States) -> Tensor:
        """Drives and feedback; the latter is the derivative of z_m·A_km(z_k), pools and all."""
        hopfield = self.hopfield
        parts = [t.synapse(z[t.source]) for t in (hopfield.terms[e] for e in hopfield.into[k]) if not t.loop]
        for e in hopfield.out_of[k]:
            term = hopfield.terms[e]
            if term.target in hopfield.potentials:
                linearised = z[k] if z[k].requires_grad else z[k].detach().requires_grad_()
                with by_states_alone():
                    agreement = term.agreement({**z, k: linearised}).sum()
                (feedback,) = torch.autograd.grad(agreement, linearised, create_graph=True)
                parts.append(hopfield.gain_of(e) * feedback)
        return hopfield.potentials[k](reduce(torch.add, parts)).to(z[k].dtype)

    def outputs(self, z: States) -> list[Tensor]:
        """The states of the layers that have a loss, or what is read out."""
        return self.hopfield.says(z)

    def by_layer(self, z: States) -> tuple[Tensor, ...]:
        """By name as well; read-outs that are no states among them."""
        return ByLayer.of(self.hopfield.net.wiring, self.hopfield.by_number(z))


class Linearised:
    """An equilibrium at its free states: every F_k and the loss, ready to be differentiated.

    Args:
        equilibrium: whose.
        z: its free states.
        value: from the outputs to the loss, a number.

    Attributes:
        loss: the loss.
    """

    def __init__(self, equilibrium: Equilibrium, z: States, value: Callable[[list[Tensor]], Tensor]) -> None:
        self.equilibrium, self._value = equilibrium, value
        self._layers = equilibrium.layers
        self._z = {k: each.detach().requires_grad_(k > 0) for k, each in z.items()}
        with by_states_alone():
            self._new, self.loss = self._made(self._z)

    @property
    def cyclic(self) -> bool:
        """Whether a layer reads itself or one above."""
        return any(j >= k for k in self._layers for j in self.equilibrium.reads(k))

    def multipliers(self, steps: int | None, tolerance: float) -> tuple[dict[int, Tensor], int]:
        """λ_1 .. λ_M, by sweeps down through the layers: each takes what the others send it now.

        That is the transpose of a sweep up, so it converges where sweeps up do, and as fast.

        Args:
            steps: how many sweeps; None for as many as it takes.
            tolerance: enough is the sweep in which no λ_k changes by more than this, relatively.

        Returns:
            The multipliers, and the sweeps made.

        Raises:
            DivergenceError: if they do not settle.
        """
        most = self.equilibrium.sweeps if steps is None else steps
        damping = self.equilibrium.damping if self.cyclic else 0.0
        force = self._pulled(self.loss, None, self._layers)
        current, sent = dict(force), {k: dict[int, Tensor]() for k in self._layers}
        moved = 0.0
        for sweep in range(1, most + 1):
            moved = 0.0
            for k in reversed(self._layers):
                arriving = [sent[m][k] for m in self._layers if k in sent[m]]
                old, new = current[k], torch.stack([force[k], *arriving]).sum(0)
                current[k] = torch.lerp(new, old, damping) if damping else new
                moved = max(moved, _change(old, current[k], sweep, k))
                sent[k] = self._pulled(self._new[k], current[k], self.equilibrium.reads(k))
            if moved <= tolerance or not self.cyclic:
                return current, sweep
        if steps is None:
            raise DivergenceError(
                f"the adjoint states do not settle within {most} sweeps: they still move by {moved:.3g} of their "
                f"norm, but the tolerance is {tolerance:g}"
            )
        return current, most

    def learn(self, multipliers: Mapping[int, Tensor]) -> None:
        """Add ∂ℓ/∂θ + Σ_k λ_k ∂F_k/∂θ to the `.grad` of the parameters."""
        new, loss = self._made({k: z.detach() for k, z in self._z.items()})
        weighted = [(loss, torch.ones_like(loss)), *((new[k], multipliers[k]) for k in self._layers)]
        weighted = [(made, weight) for made, weight in weighted if made.requires_grad]  # not of frozen parameters
        if weighted:
            torch.autograd.backward([made for made, _ in weighted], [weight for _, weight in weighted])

    @torch.enable_grad()
    def _made(self, z: States) -> tuple[dict[int, Tensor], Tensor]:
        """Every F_k(z), and the loss."""
        torch.clear_autocast_cache()  # its copies of the weights were made without a graph
        new = {k: self.equilibrium.updated(k, z) for k in self._layers}
        return new, self._value(self.equilibrium.outputs(z))

    def _pulled(self, value: Tensor, by: Tensor | None, layers: Sequence[int]) -> dict[int, Tensor]:
        """The vector-Jacobian product of a value by these layers' states."""
        states = [self._z[j] for j in layers]
        if not value.requires_grad or not states:
            return {j: torch.zeros_like(z) for j, z in zip(layers, states, strict=True)}
        pulls = torch.autograd.grad(
            value, states, by, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return dict(zip(layers, pulls, strict=True))


def _change(old: Tensor, new: Tensor, sweep: int, k: int) -> float:
    """How far a multiplier has moved, relatively.

    Raises:
        DivergenceError: if it is not finite.
    """
    change = float(torch.linalg.vector_norm(new - old, dtype=torch.float64))
    if not math.isfinite(change):
        raise DivergenceError(f"the adjoint states diverged at sweep {sweep}, layer {k}: NaN or infinite")
    return change / float(torch.linalg.vector_norm(new, dtype=torch.float64)) if change else 0.0
