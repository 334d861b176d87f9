"""Slow, obvious twins of the energy-based rules, written from the equations of MATHS §7.

`Published` is the formulation of the papers' code: everything is a derivative, by autograd, of one function Φ of
the whole net at once. `Equilibrium` has the equilibria of dense nets by Newton's method on all states at once, and
the gradient of the loss there by implicit differentiation. Of the library they take the numbers in a net alone.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import dualprop as dp


def logistic(a: Tensor) -> Tensor:
    """Of complex a, too."""
    return 1 / (1 + torch.exp(-a))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda a: a,
    "relu": lambda a: a.clamp(min=0),
    "hard-sigmoid": lambda a: a.clamp(0, 1),
    "half-hard-sigmoid": lambda a: (a / 2).clamp(0, 1),
    "hard-tanh": lambda a: a.clamp(-1, 1),
    "sigmoid": logistic,
    "shifted-sigmoid": lambda a: logistic(4 * a - 2),
    "tanh": lambda a: (torch.exp(2 * a) - 1) / (torch.exp(2 * a) + 1),
    "holo-tanh": lambda a: 0.5 * a * logistic(a) + (1 - 0.5 * a) * logistic(a - 2),
    "softmax": lambda a: torch.exp(a) / torch.exp(a).sum(1, keepdim=True),
}
ORDERS: dict[str, Callable[[int], list[list[int]]]] = {
    "synchronous": lambda depth: [list(range(1, depth + 1))],
    "even-odd": lambda depth: [list(range(1, depth + 1, 2)), list(range(2, depth + 1, 2))],
    "forward": lambda depth: [[k] for k in range(1, depth + 1)],
    "backward": lambda depth: [[k] for k in reversed(range(1, depth + 1))],
}


def windows(z: Tensor, size: int, stride: int) -> Tensor:
    """The neurons of every pooling window in a last dimension."""
    tall, wide = ((n - size) // stride + 1 for n in z.shape[2:])
    places = itertools.product(range(size), repeat=2)
    return torch.stack(
        [
            z[:, :, i : i + (tall - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
            for i, j in places
        ],
        -1,
    )


def pooled(pool: dp.Pool | None, z: Tensor) -> Tensor:
    """The pool by its definition, of complex z too."""
    if pool is None:
        return z
    seen = windows(z, pool.size, pool.stride)
    if isinstance(pool, dp.MaxPool2d):
        return seen.gather(-1, seen.argmax(-1, keepdim=True))[..., 0]  # the first among equals
    if isinstance(pool, dp.AvgPool2d):
        return seen.mean(-1)
    weights = torch.exp(seen / pool.temperature)
    return (weights * seen).sum(-1) / weights.sum(-1)


def real_affine(synapse: dp.Synapse, z: Tensor) -> Tensor:
    """W z + b by PyTorch's functions."""
    if isinstance(synapse, dp.Dense):
        return torch.nn.functional.linear(z.flatten(1), synapse.weight, synapse.bias)
    if isinstance(synapse, dp.Affine):
        return synapse.module(z)
    return torch.nn.functional.conv2d(z, synapse.weight, synapse.bias, *synapse.geometry)


def affine(synapse: dp.Synapse, z: Tensor) -> Tensor:
    """W z + b: of a complex z, (W Re z + b) + i W Im z."""
    if not z.is_complex():
        return real_affine(synapse, z)
    imaginary = real_affine(synapse, z.imag) - real_affine(synapse, torch.zeros_like(z.imag))
    return torch.complex(real_affine(synapse, z.real), imaginary)


def drive(synapse: dp.Synapse, z: Tensor) -> Tensor:
    """A(z), pools in front and behind included."""
    behind = getattr(synapse, "behind", None)
    core = synapse if behind is None else synapse.synapse
    return pooled(behind, affine(core, pooled(core.pool, z)))


class Published:
    """The formulation of the papers' code: s_k <- f_k(∂Φ/∂s_k) with Φ = Σ_k γ^{k-M} s_k·A_k(s_{k-1}) - βℓ.

    γ = 1 but for contrastive Hebbian learning, where ∂Φ/∂s_k is divided by γ^{k-M} again.

    Args:
        net: symmetric, its pools and synapses those above.
        activations: names of f_1 .. f_M; one fewer than the net's layers for a read-out.
        x: inputs.
        y: targets, floats.
        loss: "mse", of the last state; or "cross_entropy", of what the layer above the last state reads out.
        order: a name in `ORDERS`.
    """

    def __init__(
        self,
        net: dp.Net,
        activations: list[str],
        x: Tensor,
        y: Tensor,
        *,
        loss: str = "mse",
        order: str = "synchronous",
        gamma: float = 1.0,
    ) -> None:
        self.synapses = [layer.synapse for layer in net.chain]
        self.named = dict(net.named_parameters())
        self.f = [ACTIVATIONS[name] for name in activations]
        self.softmax = activations[-1:] == ["softmax"]
        self.M = len(activations)
        self.x, self.y, self.loss, self.gamma = x, y, loss, gamma
        self.groups = [group for group in ORDERS[order](self.M) if group]

    def zeros(self) -> list[Tensor]:
        """s_1 .. s_M = 0."""
        states, z = [], self.x
        for synapse in self.synapses[: self.M]:
            z = torch.zeros_like(drive(synapse, z).detach())
            states.append(z)
        return states

    def phi(self, states: Sequence[Tensor], beta: complex) -> Tensor:
        """Φ, summed over the batch."""
        x = self.x.to(states[0]) if states else self.x
        below, total = x, x.new_zeros(())
        for k, (synapse, s) in enumerate(zip(self.synapses, states, strict=False), 1):
            total = total + self.gamma ** (k - self.M) * (s * drive(synapse, below)).sum()
            below = s
        return total - beta * self.cost(below) if beta else total

    def cost(self, top: Tensor) -> Tensor:
        """ℓ, summed over the batch."""
        if self.loss == "mse":
            return 0.5 * ((top - self.y) ** 2).sum()
        a = drive(self.synapses[-1], top)
        return (torch.log(torch.exp(a).sum(1)) - (self.y * a).sum(1)).sum()

    def output(self, states: Sequence[Tensor]) -> Tensor:
        """What the net says."""
        top = states[-1] if states else self.x
        return top if self.loss == "mse" else drive(self.synapses[-1], top).detach()

    def step(self, states: Sequence[Tensor], beta: complex, clamped: bool = False) -> list[Tensor]:
        """Every layer once; a clamped output stands still."""
        states = list(states)
        for group in self.groups:
            leaves = [s.detach().requires_grad_() for s in states]
            phi = self.phi(leaves, beta)
            slopes = torch.autograd.grad(phi.real if phi.is_complex() else phi, leaves, allow_unused=True)
            for k in group:
                if clamped and k == self.M:
                    continue
                # PyTorch's gradient of a real part is the conjugate of the derivative
                a = slopes[k - 1].resolve_conj().conj() / self.gamma ** (k - self.M)
                states[k - 1] = self.f[k - 1](a)
        return states

    def run(self, states: Sequence[Tensor], steps: int, beta: complex = 0, clamped: bool = False) -> list[Tensor]:
        """Some steps."""
        for _ in range(steps):
            states = self.step(states, beta, clamped)
        return list(states)

    def gradient(self, parts: Sequence[tuple[complex, Sequence[Tensor], complex]]) -> dict[str, Tensor]:
        """The batch mean of Re Σ_t w_t ∂E(s_t)/∂W with E = -Φ, by autograd.

        Args:
            parts: w_t, s_t and β_t.
        """
        total = sum(-w * self.phi([s.detach() for s in states], beta) for w, states, beta in parts)
        total = (total.real if total.is_complex() else total) / len(self.x)
        slopes = torch.autograd.grad(total, list(self.named.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if slope is None else slope
            for (name, p), slope in zip(self.named.items(), slopes, strict=True)
        }

    def free(self, T1: int, start: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The states at the end of a free phase from these, or from zero."""
        return self.run(self.zeros() if start is None else start, T1)

    def ep(
        self, free: Sequence[Tensor], T2: int, high: float, low: float, same_age: bool = False
    ) -> dict[str, Tensor]:
        """The gradient of equilibrium propagation between two nudges; zero is one, too, if of the same age."""
        ends = [free if beta == 0 and not same_age else self.run(free, T2, beta) for beta in (high, low)]
        width = high - low
        return self.gradient([(1 / width, ends[0], high), (-1 / width, ends[1], low)])

    def hep(self, free: Sequence[Tensor], T2: int, beta: float, N: int) -> dict[str, Tensor]:
        """That of holomorphic equilibrium propagation, with all N points of the circle."""
        circle = [beta * cmath.exp(2j * math.pi * t / N) for t in range(N)]
        spread = [s.to(torch.complex128) for s in free]
        return self.gradient([(1 / (N * b), self.run(spread, T2, b), b) for b in circle])

    def chl(self, free: Sequence[Tensor], T2: int, beta: float) -> dict[str, Tensor]:
        """That of contrastive Hebbian learning.

        Soft-max neurons say what their drives at the end of the free phase make of them.
        """
        below = free[-2] if self.M > 1 else self.x
        said = self.f[-1](drive(self.synapses[-1], below).detach()) if self.softmax else free[-1]
        clamped = [*free[:-1], said + beta * (self.y - said)]
        ends = self.run(clamped, T2, clamped=True)
        return self.gradient([(1 / beta, ends, 0), (-1 / beta, free, 0)])


class Equilibrium:
    """Equilibria of a dense net, all states of a sample solved for at once, and the loss there.

    Args:
        net: dense and symmetric.
        activation: the name of f_1 .. f_M.
        x: inputs.
        y: targets, floats.
        loss: "mse" for states of all layers, the last linear; "cross_entropy" for a read-out above the last state.
    """

    def __init__(self, net: dp.Net, activation: str, x: Tensor, y: Tensor, loss: str = "mse") -> None:
        self.net, self.x, self.y, self.loss = net, x, y, loss
        self.W = [layer.synapse.weight for layer in net.chain]
        self.b = [layer.synapse.bias for layer in net.chain]
        self.sizes = [len(b) for b in self.b][: None if loss == "mse" else -1]
        hidden = len(self.sizes) - (loss == "mse")
        self.f = [ACTIVATIONS[activation]] * hidden + [ACTIVATIONS["linear"]] * (loss == "mse")

    def moved(self, z: Tensor, x: Tensor, y: Tensor, beta: float) -> Tensor:
        """z - f(drive + feedback + nudge) for the states of one sample, of shape (all neurons,)."""
        states = [x, *z.split(self.sizes)]
        residuals = []
        for k in range(1, len(states)):
            a = self.W[k - 1] @ states[k - 1] + self.b[k - 1]
            if k + 1 < len(states):
                a = a + self.W[k].T @ states[k + 1]
            elif self.loss == "mse":
                a = a - beta * (states[k] - y)
            else:
                said = torch.softmax(self.W[k] @ states[k] + self.b[k], 0)
                a = a - beta * self.W[k].T @ (said - y)
            residuals.append(states[k] - self.f[k - 1](a))
        return torch.cat(residuals)

    def cost(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """ℓ of one sample."""
        top = z.split(self.sizes)[-1]
        if self.loss == "mse":
            return 0.5 * (top - y).square().sum()
        return -(y * torch.log_softmax(self.W[-1] @ top + self.b[-1], 0)).sum()

    def solve(self, beta: float = 0.0, start: Tensor | None = None) -> Tensor:
        """The equilibrium by Newton's method, shape (B, all neurons)."""
        solved = []
        with torch.no_grad():
            for n, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
                z = self._relaxed(x, y, beta) if start is None else start[n]
                for _ in range(20):
                    residual = self.moved(z, x, y, beta)
                    if float(residual.abs().max()) < 1e-15:
                        break
                    z = z - torch.linalg.solve(self._jacobian(z, x, y, beta), residual)
                assert float(self.moved(z, x, y, beta).abs().max()) < 1e-14
                solved.append(z)
        return torch.stack(solved)

    def _relaxed(self, x: Tensor, y: Tensor, beta: float) -> Tensor:
        """Near the equilibrium: a damped fixed-point iteration from zero."""
        z = torch.zeros(sum(self.sizes), dtype=x.dtype)
        for _ in range(100):
            z = z - 0.5 * self.moved(z, x, y, beta)
        return z

    def _jacobian(self, z: Tensor, x: Tensor, y: Tensor, beta: float) -> Tensor:
        return torch.func.jacrev(lambda states: self.moved(states, x, y, beta))(z)

    def mean_cost(self, z: Tensor) -> float:
        """The batch mean of ℓ at these states."""
        return sum(float(self.cost(*one).detach()) for one in zip(z, self.x, self.y, strict=True)) / len(z)

    def true_gradient(self) -> dict[str, Tensor]:
        """That of the mean ℓ at the free equilibrium: J^T λ = ∂ℓ/∂z, then ∂ℓ/∂W - λ·∂(moved)/∂W."""
        total = 0
        for z, x, y in zip(self.solve(), self.x, self.y, strict=True):
            down = torch.func.grad(lambda states, x=x, y=y: self.cost(states, x, y))(z).detach()
            multiplier = torch.linalg.solve(self._jacobian(z, x, y, 0.0).detach().T, down)
            total = total + (self.cost(z, x, y) - multiplier @ self.moved(z, x, y, 0.0)) / len(self.x)
        named = dict(self.net.named_parameters())
        return dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))


def one_hot(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Rows of the unit matrix."""
    return torch.eye(classes, dtype=like.dtype)[y]
