"""Dual propagation on graphs the slow and obvious way: loops over edges, as MATHS §8 has it.

Nothing is cached: every drive and every feedback is summed anew from the states, edge by edge. Nothing of the
library is used but to read the weights and the wiring of a net (`read`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import dualprop as dp

Array = np.ndarray


def _softmax(a: Array) -> Array:
    e = np.exp(a - a.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda a: a.copy(),
    "relu": lambda a: np.where(a > 0, a, 0.0),
    "tanh": np.tanh,
}
EXACT = ("linear", "relu")  # projections, on which the squared error is nudged exactly


@dataclass(frozen=True)
class Wire:
    """An edge: A(z) = s M z + b, with M a weight, its transpose if `turned`, or without a name the identity."""

    source: int
    target: int
    weight: str | None = None
    bias: str | None = None
    turned: bool = False
    scale: float = 1.0


class GraphTwin:
    """Layers 1..L and inputs 0, -1, ... on one batch.

    Args:
        sizes: neurons of every layer, by its number.
        activations: names of f_k, by number.
        wires: the edges.
        parameters: the arrays that they name.
        losses: "mse", "mse-linearised" or "cross_entropy" for every output, by its number.
        beta: β_k, by number.
        damping: λ, what an update keeps of both old states.
    """

    def __init__(
        self,
        sizes: Mapping[int, int],
        activations: Mapping[int, str],
        wires: Sequence[Wire],
        parameters: Mapping[str, Array],
        losses: Mapping[int, str],
        *,
        alpha: float,
        beta: Mapping[int, float],
        transpose: bool = False,
        damping: float = 0.0,
    ) -> None:
        self.sizes, self.activations, self.wires = sizes, activations, wires
        self.parameters, self.losses = parameters, losses
        self.alpha, self.beta, self.transpose, self.damping = alpha, beta, transpose, damping
        self.L = len(sizes)
        self.plus: dict[int, Array] = {}
        self.minus: dict[int, Array] = {}

    def start(self, inputs: Sequence[Array]) -> None:
        """All states at zero, the inputs as given."""
        self.again(inputs)
        for k, size in self.sizes.items():
            self.plus[k] = np.zeros((len(inputs[0]), size))
            self.minus[k] = np.zeros((len(inputs[0]), size))

    def again(self, inputs: Sequence[Array]) -> None:
        """Other inputs, and the states as they are: what a lazy rule starts from."""
        for number, x in enumerate(inputs):
            self.plus[-number] = self.minus[-number] = x

    def mean(self, k: int) -> Array:
        """z̄_k."""
        share = 1 - self.alpha if self.transpose else self.alpha
        return share * self.plus[k] + (1 - share) * self.minus[k]

    def difference(self, k: int) -> Array:
        """z_k^+ - z_k^-."""
        return self.plus[k] - self.minus[k]

    def matrix(self, wire: Wire) -> Array:
        """s M, with a row for every neuron of the target."""
        if wire.weight is None:
            return wire.scale * np.eye(self.plus[wire.target].shape[1])
        weight = self.parameters[wire.weight]
        return wire.scale * (weight.T if wire.turned else weight)

    def drive(self, k: int) -> Array:
        """a_k = Σ_{j→k} A_jk(z̄_j)."""
        a = np.zeros_like(self.plus[k])
        for wire in self.wires:
            if wire.target == k:
                a += self.mean(wire.source) @ self.matrix(wire).T
                if wire.bias is not None:
                    a += self.parameters[wire.bias]
        return a

    def feedback(self, k: int) -> Array:
        """e_k = Σ_{k→m} (β_k/β_m) A_kmᵀ(z_m⁺ - z_m⁻)."""
        e = np.zeros_like(self.plus[k])
        for wire in self.wires:
            if wire.source == k:
                e += self.beta[k] / self.beta[wire.target] * self.difference(wire.target) @ self.matrix(wire)
        return e

    def block(self, k: int, y: Array | None) -> tuple[Array, Array]:
        """Both states of layer k; y is None where no loss nudges it."""
        a, e, f = self.drive(k), self.feedback(k), ACTIVATIONS[self.activations[k]]
        plus, minus = a + self.alpha * e, a - (1 - self.alpha) * e
        if y is None:
            return f(plus), f(minus)
        up, down = self.alpha * self.beta[k], (1 - self.alpha) * self.beta[k]
        if self.losses[k] == "mse" and self.activations[k] in EXACT:
            return f((plus + up * y) / (1 + up)), f((minus - down * y) / (1 - down))
        force = (_softmax(f(a)) if self.losses[k] == "cross_entropy" else f(a)) - y
        return f(plus - up * force), f(minus + down * force)

    def update(self, layers: Sequence[int], targets: Mapping[int, Array] | None) -> None:
        """These layers at once, all from the states before; `targets` by output, None while no loss acts."""
        new = {k: self.block(k, None if targets is None else targets.get(k)) for k in layers}
        for k, (plus, minus) in new.items():
            self.plus[k] = (1 - self.damping) * plus + self.damping * self.plus[k]
            self.minus[k] = (1 - self.damping) * minus + self.damping * self.minus[k]

    def sweeps(self, count: int, targets: Mapping[int, Array]) -> None:
        """Up through all but outputs that lead no further up, the first time without losses; down through all."""
        for sweep in range(count):
            for k in range(1, self.L + 1):
                leads_up = any(wire.source == k and wire.target > k for wire in self.wires)
                if leads_up or k not in self.losses:
                    self.update([k], None if sweep == 0 else targets)
            for k in range(self.L, 0, -1):
                self.update([k], targets)

    def ticks(self, count: int, targets: Mapping[int, Array], done: int = 0) -> None:
        """All layers at once, the losses from tick L on; `done` ticks have been before these."""
        for tick in range(done + 1, done + count + 1):
            self.update(range(1, self.L + 1), targets if tick >= self.L else None)

    def in_order(self, order: Sequence[int], targets: Mapping[int, Array]) -> None:
        """One layer at a time."""
        for k in order:
            self.update([k], targets)

    def gradient(self) -> dict[str, Array]:
        """The batch mean of (1/β_k)(z_k⁻ - z_k⁺) z̄_jᵀ over the edges, added up where edges share a weight."""
        gradient = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        for wire in self.wires:
            delta = -self.difference(wire.target) / self.beta[wire.target] / len(self.plus[0])
            outer = wire.scale * delta.T @ self.mean(wire.source)
            if wire.weight is not None:
                gradient[wire.weight] += outer.T if wire.turned else outer
            if wire.bias is not None:
                gradient[wire.bias] += delta.sum(0)
        return gradient


def read(rule: dp.DualProp, losses: Sequence[str], damping: float = 0.0) -> GraphTwin:
    """The twin of a rule on a net of `Dense`, `Identity` and `Transposed` edges."""
    net = rule.net
    names = {id(p): name for name, p in net.named_parameters()}
    wires = []
    for (source, target), synapse in zip(net.wiring.edges, net.synapses, strict=True):
        if isinstance(synapse, dp.Identity):
            wires.append(Wire(source, target))
        elif isinstance(synapse, dp.Transposed):
            wires.append(Wire(source, target, names[id(synapse.tied.weight)], None, True, synapse.scale))
        else:
            bias = None if synapse.bias is None else names[id(synapse.bias)]
            wires.append(Wire(source, target, names[id(synapse.weight)], bias))
    parameters = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    numbers = range(1, len(net) + 1)
    sizes: dict[int, int] = {}
    for k in numbers:  # every layer has an edge from an input or an earlier layer
        wire, synapse = next(
            (w, s) for w, s in zip(wires, net.synapses, strict=True) if w.target == k and w.source < k
        )
        if wire.weight is None:
            assert wire.source > 0, "an identity reads a layer"
            sizes[k] = sizes[wire.source]
        else:
            sizes[k] = parameters[wire.weight].shape[1 if wire.turned else 0]
    potentials = {k: type(net.layers[k - 1].potential).__name__.lower() for k in numbers}
    return GraphTwin(
        sizes,
        potentials,
        wires,
        parameters,
        dict(zip(net.wiring.outputs, losses, strict=True)),
        alpha=rule.nudge.alpha,
        beta=dict(zip(numbers, rule.nudge.beta, strict=True)),
        transpose=rule.nudge.transpose,
        damping=damping,
    )
