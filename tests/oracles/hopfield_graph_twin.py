"""Slow, obvious twin of the energy-based rules on graphs: one function Φ, summed edge by edge, and autograd.

Φ(s) = Σ_e c_k s_k·A_e(s_j) - β Σ ℓ over the edges e = j → k, over one of a tied pair, and of a loop over half its
weights; s_k <- f_k(∂Φ/∂s_k / c_k), and what is learnt is -∂Φ/∂W. Of the library it takes the numbers in a net.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.hopfield_twin import ACTIVATIONS, affine, drive

States = dict[int, Tensor]


def applied(synapse: dp.Synapse, z: Tensor, like: Tensor | None) -> Tensor:
    """A(z); `like` is the state that it drives, whose shape a transposed convolution needs."""
    if isinstance(synapse, dp.Identity):
        return z if synapse.pool is None else synapse.pool(z)
    if isinstance(synapse, dp.Local):
        return synapse.module(z)
    if isinstance(synapse, dp.Transposed):
        tied = synapse.tied
        if isinstance(tied, dp.Dense):
            back = z.flatten(1) @ tied.weight.to(z)
            return synapse.scale * (back if like is None else back.reshape(like.shape))
        zero = torch.zeros_like(like).requires_grad_()
        (back,) = torch.autograd.grad(affine(tied, zero), zero, z, create_graph=True)
        return synapse.scale * back
    return drive(synapse, z)


class HopfieldGraph:
    """A net whose edges are an energy's terms, on one batch.

    Args:
        net: of `Dense`, `Conv2d`, pools, `Identity`, `Transposed` and `Local` edges.
        x: its inputs.
        y: targets for each output, floats.
        losses: "mse" or "cross_entropy" for each output.
        order: "synchronous", "even-odd" (no neighbours at once), "forward" or "backward".
        gamma: γ; with 1 or a chain it is what it was there, otherwise γ to the power of the levels between.
        clamps: for contrastive Hebbian learning, whose outputs under cross-entropy are soft-max neurons.
    """

    def __init__(
        self,
        net: dp.Net,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        losses: Sequence[str],
        *,
        order: str = "even-odd",
        gamma: float = 1.0,
        clamps: bool = False,
    ) -> None:
        self.net, self.gamma, self.clamps = net, gamma, clamps
        self.inputs = {-n: each for n, each in enumerate(x)}
        self.targets = dict(zip(net.wiring.outputs, y, strict=True))
        self.losses = dict(zip(net.wiring.outputs, losses, strict=True))
        self.edges = []
        wires = list(zip(net.wiring.edges, net.synapses, strict=True))
        for (j, k), synapse in wires:
            partner = next((s for ends, s in wires if ends == (k, j) and j != k), None)
            tied = isinstance(synapse, dp.Transposed) and synapse.tied is partner
            if not tied and not (isinstance(synapse, dp.Identity) and partner is not None and j > k):
                self.edges.append((j, k, synapse))
        leads = {j for j, _ in net.wiring.edges}
        self.read = {k for k, loss in self.losses.items() if loss == "cross_entropy" and k not in leads}
        numbers = range(1, len(net) + 1)
        self.settling = [k for k in numbers if clamps or k not in self.read]
        self.f = {}
        for k in numbers:
            name = next(name for name, p in dp.POTENTIALS.items() if p == net.layers[k - 1].potential)
            self.f[k] = ACTIVATIONS["softmax" if clamps and k in self.read else name]
        self.level = dict.fromkeys(numbers, 0)
        for _ in numbers:
            for j, k, _ in self.edges:
                if 0 < j < k:
                    self.level[j] = max(self.level[j], self.level[k] + 1)
        self.groups = self._groups(order)

    def _groups(self, order: str) -> list[list[int]]:
        if order == "synchronous":
            return [self.settling] if self.settling else []
        if order in ("forward", "backward"):
            return [[k] for k in (self.settling if order == "forward" else self.settling[::-1])]
        colours: dict[int, int] = {}
        for k in self.settling:
            near = {j if i == k else i for i, j, _ in self.edges if k in (i, j) and i != j}
            colours[k] = min(c for c in range(len(self.settling)) if all(colours.get(j) != c for j in near))
        return [[k for k in self.settling if colours[k] == c] for c in sorted(set(colours.values()))]

    def c(self, k: int) -> float:
        """c_k."""
        return self.gamma ** -self.level[k]

    def zeros(self) -> States:
        """All states at zero."""
        shapes = self.net.state_shapes([tuple(self.inputs[-n].shape[1:]) for n in range(len(self.inputs))])
        x = self.inputs[0]
        return {k: x.new_zeros(len(x), *shapes[k]) for k in self.settling}

    def all(self, states: Mapping[int, Tensor]) -> States:
        """Inputs and states, in the states' type."""
        kind = next(iter(states.values())).dtype if states else self.inputs[0].dtype
        return {**{n: x.to(kind) for n, x in self.inputs.items()}, **states}

    def said(self, k: int, states: Mapping[int, Tensor]) -> Tensor:
        """Of an output: its state, or its drives."""
        if k not in self.read:
            return states[k]
        z = self.all(states)
        return sum(applied(synapse, z[j], None) for j, target, synapse in self.edges if target == k)

    def cost(self, states: Mapping[int, Tensor]) -> Tensor:
        """Σ ℓ, summed over the batch."""
        total = 0
        for k, y in self.targets.items():
            a = self.said(k, states)
            if self.losses[k] == "mse":
                total = total + 0.5 * ((a - y) ** 2).sum()
            else:
                total = total + (torch.log(torch.exp(a).sum(1)) - (y * a).sum(1)).sum()
        return total

    def phi(self, states: Mapping[int, Tensor], beta: complex) -> Tensor:
        """Φ, summed over the batch."""
        z = self.all(states)
        total = z[0].sum() * 0
        for j, k, synapse in self.edges:
            if k not in states:
                continue
            agreement = (z[k] * applied(synapse, z[j], z[k])).sum()
            if j == k:
                agreement = (agreement + (z[k] * applied(synapse, torch.zeros_like(z[k]), z[k])).sum()) / 2
            total = total + self.c(k) * agreement
        return total - beta * self.cost(states) if beta else total

    def moved(self, states: States, beta: complex) -> States:
        """f_k(∂Φ/∂s_k / c_k) of every layer."""
        leaves = {k: s if s.requires_grad else s.detach().requires_grad_() for k, s in states.items()}
        phi = self.phi(leaves, beta)
        phi = phi.real if phi.is_complex() else phi
        slopes = torch.autograd.grad(phi, list(leaves.values()), create_graph=True, materialize_grads=True)
        # PyTorch's gradient of a real part is the conjugate of the derivative
        drives = {k: s.resolve_conj().conj() / self.c(k) for k, s in zip(leaves, slopes, strict=True)}
        return {k: self.f[k](a) for k, a in drives.items()}

    def run(self, states: Mapping[int, Tensor], steps: int, beta: complex = 0, clamped: bool = False) -> States:
        """Some steps, each of every layer once; clamped outputs stand still."""
        states = dict(states)
        for _ in range(steps):
            for group in self.groups:
                new = self.moved(states, beta)
                states.update({k: new[k].detach() for k in group if not (clamped and k in self.targets)})
        return states

    def gradient(self, parts: Sequence[tuple[complex, States, complex]]) -> dict[str, Tensor]:
        """The batch mean of Re Σ_t w_t ∂E(s_t)/∂W, from w_t, s_t and β_t."""
        total = sum(-w * self.phi({k: s.detach() for k, s in states.items()}, b) for w, states, b in parts)
        total = (total.real if total.is_complex() else total) / len(self.inputs[0])
        named = dict(self.net.named_parameters())
        slopes = torch.autograd.grad(total, list(named.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(named, slopes, strict=True))

    def ep(self, free: States, T2: int, high: float, low: float) -> dict[str, Tensor]:
        """Between two nudges."""
        ends = [free if beta == 0 else self.run(free, T2, beta) for beta in (high, low)]
        width = high - low
        return self.gradient([(1 / width, ends[0], high), (-1 / width, ends[1], low)])

    def hep(self, free: States, T2: int, beta: float, N: int) -> dict[str, Tensor]:
        """With all N points of the circle."""
        circle = [beta * cmath.exp(2j * math.pi * t / N) for t in range(N)]
        spread = {k: s.to(torch.complex128) for k, s in free.items()}
        return self.gradient([(1 / (N * b), self.run(spread, T2, b), b) for b in circle])

    def chl(self, free: States, T2: int, beta: float) -> dict[str, Tensor]:
        """Between clamped states and free ones."""
        start = dict(free)
        for k, y in self.targets.items():
            said = self.said(k, free).detach()
            said = self.f[k](said) if k in self.read else said
            force = y - (
                torch.softmax(said, 1) if self.losses[k] == "cross_entropy" and k not in self.read else said
            )
            start[k] = said + beta * force
        return self.gradient([(1 / beta, self.run(start, T2, clamped=True), 0), (-1 / beta, free, 0)])

    def true_gradient(self, states: States) -> dict[str, Tensor]:
        """That of the mean loss at these equilibria, sample by sample: (1 - F_zᵀ) λ = ∂ℓ/∂z, then λ·∂F/∂W."""
        size, named = len(self.inputs[0]), dict(self.net.named_parameters())
        shapes = {k: s[0].numel() for k, s in states.items()}
        total = 0

        def split(flat: Tensor) -> States:
            parts = flat.split(list(shapes.values()))
            return {k: p.view(1, *states[k].shape[1:]) for k, p in zip(shapes, parts, strict=True)}

        for n in range(size):
            one = HopfieldGraph.__new__(HopfieldGraph)
            vars(one).update(vars(self))
            one.inputs = {k: x[n : n + 1] for k, x in self.inputs.items()}
            one.targets = {k: y[n : n + 1] for k, y in self.targets.items()}

            def once(flat: Tensor, one: HopfieldGraph = one) -> Tensor:
                return torch.cat([z.flatten() for z in one.moved(split(flat), 0).values()])

            z = torch.cat([s[n].flatten() for s in states.values()]).detach().requires_grad_()
            jacobian = torch.autograd.functional.jacobian(once, z)
            (force,) = torch.autograd.grad(one.cost(split(z)), z)
            multiplier = torch.linalg.solve((torch.eye(len(z)).to(z) - jacobian).T, force)
            total = total + (multiplier @ once(z.detach()) + one.cost(split(z.detach()))) / size
        slopes = torch.autograd.grad(total, list(named.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(named, slopes, strict=True))
