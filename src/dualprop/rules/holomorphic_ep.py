"""Holomorphic equilibrium propagation: nudges around a circle in the complex plane.

References:
    Laborieux, Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
    Oscillations*, NeurIPS 2022, arXiv 2209.00530.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, NotNegative, Positive, Seed, checked
from dualprop.engines.hopfield.contrasts import Contrast, Force, SideBySide, WeightedNudge, check_complex
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.phases import Free, HopfieldNet, Phase
from dualprop.engines.hopfield.relaxation import Settled
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss, LossOrName
from dualprop.nets.net import Net
from dualprop.nets.potentials import POTENTIALS
from dualprop.rules.equilibrium_prop import check_strength, read_out
from dualprop.rules.relaxing import Order, Relaxing


def _circle(beta: float, N: int) -> list[WeightedNudge]:
    """The N points of the circle, in order."""
    betas = [beta * cmath.exp(2j * math.pi * t / N) for t in range(N)]
    return [WeightedNudge(b, 1 / (N * b)) for b in betas]


def _upper_half(beta: float, N: int, generator: torch.Generator) -> list[WeightedNudge]:
    """β and -β, then the points between them in the upper half plane, which stand for two each."""
    real = [WeightedNudge(beta, 1 / (N * beta)), WeightedNudge(-beta, -1 / (N * beta))]
    return real + [WeightedNudge(b, 2 / (N * b)) for b, _ in _circle(beta, N)[1 : N // 2]]


@dataclass(frozen=True)
class InTurn:
    """Nudged phases one after the other, each from where the one before has ended, with noise on every drive.

    Args:
        net: that relaxes.
        loss: whose force nudges it.
        phase: of every nudge.
        points: the nudges and their weights; the opposite of the first is half way.
        noise: standard deviation of the noise.
    """

    net: HopfieldNet
    loss: Loss
    phase: Phase
    points: Sequence[WeightedNudge]
    noise: float

    def __call__(self, x: Tensor, y: Tensor, free: Free, generator: torch.Generator) -> Contrast:
        """See `Contrasting`."""
        one, all_of_them = Copies(len(x), 0, 1), Copies(len(x), 0, len(self.points))
        check_complex(x, one)
        drive = None if free.drive is None else one.spread(free.drive)
        states = [one.spread(z) for z in free.states]
        visited, steps, residual = [], 0, 0.0
        for point in self.points:
            force = Force(self.net, self.loss, y, one, [point])
            noise = partial(self.drawn, generator)
            states, settled = self.phase.run(self.net, drive, states, one, force=force, noise=noise)
            visited.append([one.parts(z)[0] for z in states])
            steps, residual = steps + settled.steps, max(residual, settled.residual)
        gathered = [all_of_them.joined([torch.cat(parts)]) for parts in zip(*visited, strict=True)]
        readout = Force(self.net, self.loss, y, all_of_them, self.points).on_readout(x, gathered)
        weights = [point.weight for point in self.points]
        shown = 0, len(self.points) // 2
        return Contrast(all_of_them, weights, gathered, readout, Settled(steps, residual), shown)

    def drawn(self, generator: torch.Generator, a: Tensor) -> Tensor:
        """Noise on the real parts of one copy's drive a."""
        drawn = torch.randn(len(a) // 2, *a.shape[1:], generator=generator, dtype=a.dtype).to(a.device)
        return torch.cat([self.noise * drawn, torch.zeros_like(drawn)])


class HolomorphicEP(Relaxing):
    """Equilibrium propagation with N nudges β_t = |β| e^{2πit/N}, whose average is exact to the order of β^N.

    The gradient is (1/N) Σ_t Re[∂E(z^{β_t})/∂W / β_t], Cauchy's formula for the derivative at β = 0, so β need not
    be small. States, activations and pools are holomorphic functions of complex numbers; a real affine map acts on
    real and imaginary part. Equilibria at conjugate nudges are conjugate, so only those of the upper half of the
    circle relax, all in the same products. With N = 2 nothing is complex: this is centred equilibrium
    propagation. No free phase enters the gradient; T1 steps of it are the prediction and where the nudged ones
    start.

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
        loss: LossOrName = "mse",
        beta: Positive = 0.4,
        N: Annotated[Count, Field(ge=2, multiple_of=2)] = 4,
        T1: Count = 30,
        T2: Count = 10,
        noise: NotNegative = 0.0,
        order: Order = "even-odd",
        warm: bool = False,
        tolerance: NotNegative = 0.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, seed=seed)
        check_strength(beta, net, self.loss)
        self.beta, self.N, self.noise = beta, N, noise
        hopfield = read_out(net, self.loss)
        self._check_holomorphic(hopfield)
        phase = self.phase("nudged", T2, len(hopfield.layers))
        if noise:
            self.compose(hopfield, InTurn(hopfield, self.loss, phase, _circle(self.beta, N), self.noise))
        else:
            points = partial(_upper_half, self.beta, N)
            self.compose(hopfield, SideBySide(hopfield, self.loss, phase, points))

    def _check_holomorphic(self, hopfield: HopfieldNet) -> None:
        if not self.loss.holomorphic:
            raise DualpropError(f"loss: {type(self.loss).__name__} has no holomorphic gradient")
        for k, layer in enumerate(self.net.chain, 1):
            if k <= len(hopfield.layers) and not layer.potential.holomorphic:
                name = next((n for n, p in POTENTIALS.items() if p == layer.potential), layer.potential)
                raise DualpropError(
                    f"net: the activation of layer {k}, {name}, is not holomorphic; "
                    "use for example 'shifted-sigmoid', 'tanh' or 'holo-tanh'"
                )
            for pool in (layer.synapse.core.pool, layer.synapse.behind):
                if pool is not None and not pool.holomorphic:
                    raise DualpropError(
                        f"net: the pooling of layer {k}, {pool}, is not holomorphic; use pool='softmax' or 'avg'"
                    )
