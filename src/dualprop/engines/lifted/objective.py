"""The dyadic objective at α = 1 and α = 0: a lifted net with Fenchel-Young penalties, its value and its gradient.

At α = 1 the minus states are z^- = f(a), at α = 0 the plus states are, and what is left of the objective is

    α = 1:  L_1 = min_z ℓ(z_L) + Σ_k (1/β_k) D_k(z_k, a_k)   <= the feed-forward loss
    α = 0:  L_0 = max_z ℓ(z_L) - Σ_k (1/β_k) D_k(z_k, a_k)   >= the feed-forward loss

with a_k = Σ_{j→k} A_jk(z_j), in a chain A_k(z_{k-1}), and the Fenchel-Young penalty D_k(z, a) = G_k(z) + G_k*(a) -
z·a >= 0, which is zero where z = f_k(a). Both minimise E = s ℓ(z_L) + Σ_k (1/β_k) D_k(z_k, a_k), with s = 1 and
s = -1. With several outputs ℓ is the sum of their losses.

References:
    Li, Fang, Lin, *Lifted Proximal Operator Machines*, AAAI 2019. Zach, *Bilevel Programs Meet Deep Learning*,
    arXiv 2105.07231. Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.nets.kernels.arena import converted, room
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import Linearisation, product_dtype

_EPS = 8 * torch.finfo(torch.float64).eps
_TINY = torch.finfo(torch.float32).tiny


class Level(NamedTuple):
    """One layer's states.

    Attributes:
        drive: a_k.
        nudge: e_k.
        state: z_k = f_k(a_k + e_k).
        rise: z_k - f_k(a_k).
        linearised: what each synapse into it needs to know of the state below to send down to it, by edge.
    """

    drive: Tensor
    nudge: Tensor
    state: Tensor
    rise: Tensor
    linearised: Mapping[int, Linearisation]


class Point(NamedTuple):
    """Where E has been evaluated, and which way is down: one entry a layer, one row a sample.

    Attributes:
        nudges: e_k.
        drives: a_k.
        steps: Δ_k.
        bent: f'_k(u_k) Δ_k.
        objective: E, shape (B,), in double precision.
        rounding: how much of E may be rounding, shape (B,).
        residual: the largest over the layers of ‖f(u_k + Δ_k) - z_k‖ / ‖z_k - f(a_k)‖, shape (B,).
        reach: ‖z_k - f(a_k)‖, shape (B, L).
        slope: the derivative of E along Δ, shape (B,).
    """

    nudges: list[Tensor]
    drives: list[Tensor]
    steps: list[Tensor]
    bent: list[Tensor]
    objective: Tensor
    rounding: Tensor
    residual: Tensor
    reach: Tensor
    slope: Tensor

    def along(self, theta: Tensor, apart: Tensor | None = None) -> Callable[[int, Tensor], Tensor]:
        """The nudges a step θΔ further, θ of shape (B,): what `Lifted.at` asks for.

        Samples that step apart hold a_k as it is here, so that u_k is what moves by θΔ_k.
        """

        def nudge(k: int, a: Tensor) -> Tensor:
            e = torch.mul(column(theta, a), self.steps[k - 1], out=room(a)).add_(self.nudges[k - 1])
            return e if apart is None else torch.where(column(apart, a), e + (self.drives[k - 1] - a), e)

        return nudge


class Lifted:
    """E and its gradient, for states z_k = f_k(u_k) with u_k = a_k + e_k: if a nudge e_k moves, all above follow.

    With everything above taken along, ∂E/∂e_k = -(1/β_k) f'_k(u_k) Δ_k, where

        Δ_L = -s β_L ∇ℓ(z_L) - e_L
        Δ_k = Σ_{k→m} (β_k/β_m) A_km^T (z_m - f_m(a_m) + f'_m(u_m) Δ_m) - e_k

    is, but for the curvature of f, where a top-down sweep of dual propagation would move e_k. So Δ is the
    direction of steepest descent in the metric f'/β. For β -> 0 a whole step from e = 0 on is exact.

    Args:
        net: without cycles, with symmetric feedback and convex potentials.
        losses: of its outputs, taken as they are, not linearised.
        sign: s.
        beta: β_1 .. β_L.
        x: an input, whose type the products and the states are made in (states in float32 at least).
    """

    def __init__(self, net: Net, losses: Sequence[Loss], sign: float, beta: Sequence[float], x: Tensor) -> None:
        self.net, self.losses, self.sign, self.beta = net, losses, sign, beta
        self.potentials = [layer.potential.ideal for layer in net.stack]
        self._wiring, self._synapses = net.wiring, net.synapses
        self.product_dtype = product_dtype(x)
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self._eps = torch.finfo(self.product_dtype).eps

    def rest(self, inputs: Mapping[int, Tensor]) -> list[Tensor]:
        """What the inputs drive, for each layer that reads one, from the first up: it stays as it is."""
        drives: dict[int, Tensor] = {}
        for e, (source, target) in enumerate(self._wiring.edges):
            if source <= 0:
                a, _ = self.drive(e, inputs[source])
                drives[target] = a if target not in drives else drives[target] + a
        return list(drives.values())

    def drive(self, e: int, z: Tensor) -> tuple[Tensor, Linearisation]:
        """A(z) of the state below an edge, and what sending down needs to know of that."""
        synapse = self._synapses[e]
        p, linearised = synapse.linearise(converted(z, self.product_dtype))
        return converted(synapse.affine(p), self.dtype), linearised

    def feedback(self, e: int, delta: Tensor, linearised: Linearisation) -> Tensor:
        """(β_k/β_m) A_km^T delta."""
        source, target = self._wiring.edges[e]
        sent = self._synapses[e].adjoint_at(converted(delta, self.product_dtype), linearised)
        ratio = self.beta[source - 1] / self.beta[target - 1]
        return torch.mul(converted(sent, self.dtype), ratio, out=room(sent, dtype=self.dtype))

    def climb(self, rest: Sequence[Tensor], nudge: Callable[[int, Tensor], Tensor]) -> list[Level]:
        """The states of all layers, from the first up, where every layer has the nudge that it is given.

        Args:
            rest: what the inputs drive, see `rest`, each of shape (B, ...).
            nudge: from k and a_k to e_k, which has the shape of a_k.
        """
        levels: list[Level] = []
        resting = iter(rest)
        for k, f in enumerate(self.potentials, 1):
            sources = [(e, self._wiring.edges[e][0]) for e in self._wiring.into[k]]
            drives = [next(resting)] if any(source <= 0 for _, source in sources) else []
            linearised: dict[int, Linearisation] = {}
            for e, source in sources:
                if source > 0:
                    drive, linearised[e] = self.drive(e, levels[source - 1].state)
                    drives.append(drive)
            a = reduce(torch.add, drives)
            e_k = nudge(k, a)
            z, rise = f.raised(a, e_k)
            levels.append(Level(a, e_k, z, rise, linearised))
        return levels

    def read(self, levels: Sequence[Level]) -> list[Level]:
        """The levels as their neurons' states are read."""
        neurons = [layer.potential for layer in self.net.stack]
        states = [f.leave(level.state) for f, level in zip(neurons, levels, strict=True)]
        return [
            level if z is level.state else level._replace(state=z, rise=level.rise + (z - level.state))
            for z, level in zip(states, levels, strict=True)
        ]

    def at(
        self,
        rest: Sequence[Tensor],
        y: Sequence[Tensor],
        nudge: Callable[[int, Tensor], Tensor],
        apart: Tensor | None = None,
    ) -> Point:
        """E and its gradient where every layer has the nudge that it is given.

        Args:
            rest: what the inputs drive, see `rest`, each of shape (B, ...).
            y: encoded targets for each output, in the type of the states.
            nudge: from k and a_k to e_k, which has the shape of a_k.
            apart: samples whose Δ_k shall be for z_k to move alone, without f' Δ from above: booleans of shape
                (B,), None for no sample.
        """
        levels = self.climb(rest, nudge)
        outputs = zip(self._wiring.outputs, self.losses, y, strict=True)
        said = [(k, levels[k - 1].state, loss, target) for k, loss, target in outputs]
        values = [loss.value(z.double(), target.double()) for _, z, loss, target in said]
        objective = self.sign * reduce(torch.add, values)
        rounding = _EPS * reduce(torch.add, [value.abs() for value in values])
        reach = [_norm(level.rise) for level in levels]
        for f, level, beta, rise in zip(self.potentials, levels, self.beta, reach, strict=True):
            penalty, uncertain = _penalty(f, level)
            objective += penalty / beta
            rounding += (uncertain + self._eps * _norm(level.drive) * rise) / beta
        pulls: dict[int, list[Tensor]] = {k: [] for k in range(1, len(levels) + 1)}
        for k, z, loss, target in said:
            pulls[k].append(loss.gradient(z, target) * (-self.sign * self.beta[k - 1]))
        steps, bent, residuals = [], [], []
        for k in range(len(levels), 0, -1):
            f, level = self.potentials[k - 1], levels[k - 1]
            back = reduce(torch.add, pulls.pop(k)) if pulls[k] else torch.zeros_like(level.drive)
            u = torch.add(level.drive, level.nudge, out=room(level.drive))
            delta = torch.sub(back, level.nudge, out=room(back))
            steps.append(delta)
            bent.append(_bend(f, u, delta))
            size = reach[k - 1] + self._eps * _norm(level.state)
            residuals.append(_norm(f.raised(u, delta)[1]) / size.clamp_min(_TINY))
            carried = bent[-1] if apart is None else bent[-1].masked_fill(column(apart, delta), 0)
            for e, linearised in level.linearised.items():
                sent = torch.add(level.rise, carried, out=room(carried))
                pulls[self._wiring.edges[e][0]].append(self.feedback(e, sent, linearised))
        return Point(
            [level.nudge for level in levels],
            [level.drive for level in levels],
            steps[::-1],
            bent[::-1],
            objective,
            rounding,
            torch.stack(residuals).amax(0),
            torch.stack(reach, 1),
            self.slope(steps[::-1], bent[::-1]),
        )

    def slope(self, direction: Sequence[Tensor], bent: Sequence[Tensor]) -> Tensor:
        """The derivative of E along a direction, Σ_k -(1/β_k) <direction_k, f'_k Δ_k>, shape (B,)."""
        parts = zip(direction, bent, self.beta, strict=True)
        products = ((torch.mul(d, b, out=room(d)), beta) for d, b, beta in parts)
        return sum((_total(product) / -beta for product, beta in products), torch.zeros(()))


def column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of shape (B,) in a shape that multiplies tensors of the shape of `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _penalty(f: Potential, level: Level) -> tuple[Tensor, Tensor]:
    """D(z, a) per sample, and how much of that may be rounding, in double precision.

    For a projection D = ½‖z - f(a)‖² + (z - f(a))·(f(a) - a), both of which are at least 0; every other potential
    says what G and G* are.
    """
    a, z, rise = level.drive, level.state, level.rise
    if f.projects:
        half = torch.mul(rise, 0.5, out=room(rise))
        penalty = _total(torch.sub(z, a, out=room(z)).sub_(half).mul_(rise))
        return penalty, _EPS * penalty.abs()
    a, z = a.double(), z.double()
    parts = f.energy(z), f.conjugate(a), -_total(a * z)
    return sum(parts, torch.zeros(())), _EPS * sum((part.abs() for part in parts), torch.zeros(()))


@torch.enable_grad()
def _bend(f: Potential, u: Tensor, delta: Tensor) -> Tensor:
    """f'(u) delta, from a graph that spans f alone. As the Hessian of G*, f' is symmetric."""
    u = u.requires_grad_()
    bent: Tensor = torch.autograd.grad(f(u), u, delta)[0]
    return bent


def _total(elements: Tensor) -> Tensor:
    """Sum over everything but the batch, in double precision."""
    return elements.flatten(1).sum(1, dtype=torch.float64)


def _norm(elements: Tensor) -> Tensor:
    """Euclidean norm over everything but the batch."""
    norms: Tensor = torch.linalg.vector_norm(elements.flatten(1), dim=1)
    return norms
