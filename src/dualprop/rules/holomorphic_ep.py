"""Holomorphic equilibrium propagation: nudges around a circle in the complex plane.

References:
    Laborieux, Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
    Oscillations*, NeurIPS 2022, arXiv 2209.00530.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.relaxation import Settled
from dualprop.errors import DualpropError, not_negative
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.potentials import POTENTIALS
from dualprop.rules.equilibrium_prop import Nudging, Point
from dualprop.rules.relaxing import Contrast, Free


class HolomorphicEP(Nudging):
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
        order: as in `EquilibriumProp`.
        warm: as there.
        tolerance: as there.
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

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | str = "mse",
        beta: float = 0.4,
        N: int = 4,
        T1: int = 30,
        T2: int = 10,
        noise: float = 0.0,
        order: str = "even-odd",
        warm: bool = False,
        tolerance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(net, loss=loss, T1=T1, T2=T2, order=order, warm=warm, tolerance=tolerance, seed=seed)
        self._check_strength(beta)
        not_negative(noise=noise)
        if not isinstance(N, int) or isinstance(N, bool) or N < 2 or N % 2:
            raise DualpropError(f"N={N!r}: must be an even whole number of at least 2")
        self.beta, self.N, self.noise = float(beta), N, float(noise)
        self._check_holomorphic()

    def _check_holomorphic(self) -> None:
        if not self.loss.holomorphic:
            raise DualpropError(f"loss: {type(self.loss).__name__} has no holomorphic gradient")
        for k, layer in enumerate(self.net.chain, 1):
            if k <= len(self.layers) and not layer.potential.holomorphic:
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

    def _points(self) -> list[Point]:
        """β and -β, then those between them in the upper half plane, for two each."""
        between = [self.beta * cmath.exp(2j * math.pi * t / self.N) for t in range(1, self.N // 2)]
        real = [Point(self.beta, 1 / (self.N * self.beta)), Point(-self.beta, -1 / (self.N * self.beta))]
        return real + [Point(beta, 2 / (self.N * beta)) for beta in between]

    def _contrast(self, x: Tensor, y: Tensor, free: Free) -> Contrast:
        if x.dtype not in (torch.float32, torch.float64) and (self.N > 2 or self.noise):
            raise DualpropError(f"x: type {x.dtype}, but there are complex states of float32 and float64 only")
        return self._around(x, y, free) if self.noise else super()._contrast(x, y, free)

    def _around(self, x: Tensor, y: Tensor, free: Free) -> Contrast:
        """All points one after the other, in noise."""
        circle = [self.beta * cmath.exp(2j * math.pi * t / self.N) for t in range(self.N)]
        points = [Point(beta, 1 / (self.N * beta)) for beta in circle]
        one, all_of_them = Copies(len(x), 0, 1), Copies(len(x), 0, self.N)
        states = [one.spread(z) for z in free.states]
        visited, steps, residual = [], 0, 0.0
        for point in points:
            relaxation = self._nudged(y, one, [point], free.drive, states, lambda a: self._noise(one, a))
            settled = relaxation.run(self.T2, self.tolerance, "nudged")
            states = relaxation.z
            visited.append([one.parts(z)[0] for z in states])
            steps, residual = steps + settled.steps, max(residual, settled.residual)
        gathered = [all_of_them.joined([torch.cat(parts)]) for parts in zip(*visited, strict=True)]
        readout = self._readout_gradient(x, y, all_of_them, points, gathered)
        weights = [point.weight for point in points]
        return Contrast(all_of_them, weights, gathered, readout, Settled(steps, residual))

    def _noise(self, copies: Copies, a: Tensor) -> Tensor:
        """Noise on the real parts."""
        drawn = torch.randn(len(a) // 2, *a.shape[1:], generator=self.generator, dtype=a.dtype).to(a.device)
        return torch.cat([self.noise * drawn, torch.zeros_like(drawn)])

    def _pair(self) -> tuple[int, int]:
        return (0, self.N // 2) if self.noise else (0, 1)
