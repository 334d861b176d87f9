"""Holomorphic equilibrium propagation: nudges around a circle in the complex plane.

References:
    Laborieux, Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
    Oscillations*, NeurIPS 2022, arXiv 2209.00530.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Unpack

import torch
from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Positive, Seed, checked
from dualprop.engines.hopfield.contrasts import (
    Contrast,
    Nudging,
    SideBySide,
    States,
    WeightedNudge,
    check_complex,
)
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.phases import Free, Phase
from dualprop.engines.hopfield.relaxation import Settled
from dualprop.errors import DualpropError
from dualprop.nets.devices.draws import Draws
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.potentials import POTENTIALS
from dualprop.nets.synapses import Pool, Synapse
from dualprop.rules.base import AnyLoss
from dualprop.rules.equilibrium_prop import read_out
from dualprop.rules.relaxing import Order, Relaxing
from dualprop.rules.standing import Channels


def _circle(beta: float, N: int) -> list[WeightedNudge]:
    """The N points of the circle, in order."""
    betas = [beta * cmath.exp(2j * math.pi * t / N) for t in range(N)]
    return [WeightedNudge(b, 1 / (N * b)) for b in betas]


def _real_first(beta: float, N: int, generator: torch.Generator) -> list[WeightedNudge]:
    """β and -β, then the points between them."""
    real = [WeightedNudge(beta, 1 / (N * beta)), WeightedNudge(-beta, -1 / (N * beta))]
    circle = _circle(beta, N)
    return real + circle[1 : N // 2] + circle[N // 2 + 1 :]


def _upper_half(beta: float, N: int, generator: torch.Generator) -> list[WeightedNudge]:
    """The same without those in the lower half plane, for which their conjugates stand."""
    real, between = _real_first(beta, N, generator)[:2], _circle(beta, N)[1 : N // 2]
    return real + [WeightedNudge(b, 2 * weight) for b, weight in between]


@dataclass(frozen=True)
class InTurn:
    """Nudged phases one after the other, each from where the one before has ended, with noise on every drive.

    Args:
        net: that relaxes.
        losses: whose forces nudge it, by output.
        phase: of every nudge.
        points: the nudges and their weights; the opposite of the first is half way.
        noise: standard deviation of the noise.
    """

    net: HopfieldNet
    losses: Mapping[int, Loss]
    phase: Phase
    points: Sequence[WeightedNudge]
    noise: float

    def __call__(self, y: States, free: Free, generator: torch.Generator) -> Contrast:
        """Contrast the phases of one batch."""
        size, count = len(free.inputs[0]), len(self.points)
        one, all_of_them = Copies(size, 0, 1), Copies(size, 0, count)
        check_complex(free.inputs[0], one)
        drives, states = ({k: one.spread(z) for k, z in each.items()} for each in (free.drives, free.states))
        visited: dict[int, list[Tensor]] = {k: [] for k in states}
        steps, residual = 0, 0.0
        for point in self.points:
            force, noise = Nudging(self.losses, y, one, [point]), partial(self.drawn, generator)
            states, settled = self.phase.run(self.net, drives, states, one, force=force, noise=noise)
            for k, z in states.items():
                visited[k].append(one.parts(z)[0])
            steps, residual = steps + settled.steps, max(residual, settled.residual)
        gathered = {k: all_of_them.joined([torch.cat(parts)]) for k, parts in visited.items()}
        spread = {k: all_of_them.spread(a) for k, a in free.drives.items()}
        readouts = Nudging(self.losses, y, all_of_them, self.points).on_readouts(self.net, spread, gathered)
        weights = [point.weight for point in self.points]
        return Contrast(all_of_them, weights, gathered, readouts, Settled(steps, residual), (0, count // 2))

    def drawn(self, generator: torch.Generator, a: Tensor) -> Tensor:
        """Noise on the real parts of one copy's drive a."""
        drawn = Draws(generator, self.noise).like(a[: len(a) // 2])
        return torch.cat([drawn, torch.zeros_like(drawn)])


class HolomorphicEP(Relaxing):
    """Equilibrium propagation with N nudges β_t = |β| e^{2πit/N}, whose average is exact to the order of β^N.

    The gradient is (1/N) Σ_t Re[∂E(z^{β_t})/∂W / β_t], Cauchy's formula for the derivative at β = 0, so β need not
    be small. States, activations and pools are holomorphic functions of complex numbers; a real affine map acts on
    real and imaginary part. Equilibria at conjugate nudges are conjugate, so only those of the upper half of the
    circle relax, all in the same products. With N = 2 nothing is complex: this is centred equilibrium
    propagation. No free phase enters the gradient; T1 steps of it are the prediction and where the nudged ones
    start.

    On devices (see `dualprop.devices`) all N points relax, for conjugate ones are read apart, and so are the real
    and the imaginary part of a state: each draws by itself, with the same gains; offsets are real.

    With noise, every state's drive receives noise·N(0, 1) in each nudged step, and all N points follow one
    another, each from where the one before ended, as in the paper's Table 1.

    Args:
        net: the net to train, its activations and pools holomorphic: "shifted-sigmoid", "tanh", "holo-tanh",
            soft-max or average pooling.
        loss: a name in `LOSSES` or a `Loss` with a holomorphic gradient.
        beta: |β|, positive; below 1 for the squared error of a linear output.
        N: points on the circle, even, at least 2.
        T1: steps of the free phase, at least 1.
        T2: steps of the nudged phases, at least 1.
        noise: standard deviation of the noise on the drives, at least 0.
        order: of the updates in a step, a name in `ORDERS` (see `EquilibriumProp`).
        warm: whether the free phase starts where the batch before ended it, slot by slot.
        tolerance: a phase ends early once no state moves by more than this in a step; at 0 where none moves.
        seed: of the noise.

    Raises:
        DualpropError: for a value out of range, or a net or loss that is not holomorphic.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3], "sigmoid")
        >>> rule = dp.HolomorphicEP(net, loss="cross_entropy", beta=0.5, N=6)
        >>> rule.backward(torch.randn(5, 4), torch.randint(3, (5,))).output.shape
        torch.Size([5, 3])
    """

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        beta: Positive = 0.4,
        N: Annotated[Count, Field(ge=2, multiple_of=2)] = 4,
        T1: Count = 30,
        T2: Count = 10,
        noise: NotNegative = 0.0,
        order: Order = "even-odd",
        warm: bool = False,
        tolerance: NotNegative = 0.0,
        seed: Seed = 0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(
            net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, seed=seed, **channels
        )
        self.beta, self.N, self.noise = beta, N, noise
        hopfield = read_out(self, beta)
        self._check_holomorphic(hopfield)
        nudged = self.phase("nudged", T2, hopfield)
        if noise:
            circle = _circle(self.beta, N)
            self.compose(hopfield, InTurn(hopfield, self.by_output, nudged, circle, self.noise))
        else:
            # on devices conjugate points are two draws
            points = _upper_half if self.devices is None else _real_first
            self.compose(hopfield, SideBySide(hopfield, self.by_output, nudged, partial(points, self.beta, N)))

    def _check_holomorphic(self, hopfield: HopfieldNet) -> None:
        for loss in self.losses:
            if not loss.holomorphic:
                raise DualpropError(f"loss: {type(loss).__name__} has no holomorphic gradient")
        for k, layer in enumerate(self.net.stack, 1):
            if k in hopfield.potentials and not layer.potential.holomorphic:
                name = next((n for n, p in POTENTIALS.items() if p == layer.potential), layer.potential)
                raise DualpropError(
                    f"net: the activation of layer {k}, {name}, is not holomorphic; "
                    "use for example 'shifted-sigmoid', 'tanh' or 'holo-tanh'"
                )
            for e, synapse in zip(self.net.wiring.into[k], layer.synapses, strict=True):
                for pool in self._pools(e, synapse):
                    if pool is not None and not pool.holomorphic:
                        raise DualpropError(
                            f"net: the pooling of layer {k}, {pool}, is not holomorphic; "
                            "use pool='softmax' or 'avg'"
                        )

    def _pools(self, e: int, synapse: Synapse) -> tuple[Pool | None, Pool | None]:
        """In front of the map on an edge and behind it."""
        try:
            return synapse.core.pool, synapse.behind
        except DualpropError as error:
            raise DualpropError(f"net: edge {self.net.wiring.arrow(e)}: {error}") from None
