"""Dual propagation with delay lines on a graph without cycles, frame by frame: MATHS.md §8 and §10 as they stand.

Nothing is indexed by the tick but the weights. With n_k the edges of the longest way to layer k and N those to
the output, layer k sees frame s at tick s + n_k - 1, and the error of s is in it at tick s + 2N - 1 - n_k, `late`
ticks after that where labels are waited for; what is computed at a tick reads the weights that the tick before has
left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.oracles.stream_twin import ACTIVATIONS, cross_entropy


class Edge(NamedTuple):
    """From layer or input j to layer k; without weights the identity."""

    j: int
    k: int
    weight: np.ndarray | None
    bias: np.ndarray | None


def longest(edges: Sequence[tuple[int, int]], k: int) -> int:
    """How many edges the longest way from the input to a layer has."""
    return max((1 + longest(edges, j) for j, target in edges if target == k), default=0)


class StreamGraphTwin:
    """Layers 1..L on input 0.

    Args:
        edges: of the graph.
        f: names of the activations, by the layer's number.
        output: its number; linear, with cross-entropy.
        beta: by the layer's number.
        late: ticks that a label is waited for.
        normalised: whether a step is divided by 1 + ‖z̄‖² of its edge.
    """

    def __init__(
        self,
        edges: Sequence[Edge],
        f: Mapping[int, str],
        output: int,
        *,
        alpha: float,
        beta: Mapping[int, float],
        lr: float,
        late: int = 0,
        normalised: bool = True,
    ) -> None:
        self.edges, self.f, self.output = list(edges), {k: ACTIVATIONS[name] for k, name in f.items()}, output
        self.alpha, self.beta, self.lr, self.late, self.normalised = alpha, beta, lr, late, normalised
        self.n = {k: longest([(e.j, e.k) for e in edges], k) for k in (0, *f)}
        self.W = [[e.weight] for e in edges]  # W[e][t]: as tick t reads it
        self.b = [[e.bias] for e in edges]
        self.z: dict[tuple[int, int], np.ndarray] = {}  # by layer and frame
        self.a: dict[tuple[int, int], np.ndarray] = {}
        self.d: dict[tuple[int, int], np.ndarray] = {}  # z^+ - z^-
        self.labels: dict[int, int] = {}
        self.t = 0

    def errs(self, k: int) -> int | None:
        """The frame whose error is in layer k at this tick, if it has a label."""
        frame = self.t - (2 * self.n[self.output] - 1 - self.n[k]) - self.late
        return frame if frame in self.labels else None

    def tick(self, x: np.ndarray, y: int | None = None) -> None:
        t = self.t
        self.z[0, t] = x
        if y is not None:
            self.labels[t] = y
        for k in sorted(self.f):
            if (frame := t - self.n[k] + 1) >= 0:
                self.a[k, frame] = self._drive(k, frame)
                self.z[k, frame] = self.f[k](self.a[k, frame])
        for k in self.f:
            if (frame := self.errs(k)) is not None:
                a, error = self.a[k, frame], self._error(k, frame)
                up, down = self.alpha * error, (1 - self.alpha) * error
                self.d[k, frame] = self.f[k](a + up) - self.f[k](a - down)
        for e in range(len(self.edges)):
            self._learn(e)
        self.t += 1

    def _drive(self, k: int, frame: int) -> np.ndarray:
        total = np.zeros(())
        for e, edge in enumerate(self.edges):
            if edge.k == k:
                W, b, z = self.W[e][self.t], self.b[e][self.t], self.z[edge.j, frame]
                total = total + (z if W is None else W @ z) + (0 if b is None else b)
        return total

    def _error(self, k: int, frame: int) -> np.ndarray:
        if k == self.output:
            return -self.beta[k] * cross_entropy(self.a[k, frame], self.labels[frame])
        total = np.zeros_like(self.a[k, frame])
        for e, edge in enumerate(self.edges):
            if edge.j == k and (edge.k, frame) in self.d:
                W, d = self.W[e][self.t], self.d[edge.k, frame]
                total = total + self.beta[k] / self.beta[edge.k] * (d if W is None else W.T @ d)
        return total

    def _learn(self, e: int) -> None:
        edge, W, b = self.edges[e], self.W[e][self.t], self.b[e][self.t]
        if (frame := self.errs(edge.k)) is not None and W is not None:
            z, delta = self.z[edge.j, frame], -self.d[edge.k, frame] / self.beta[edge.k]
            rate = self.lr / (1 + z @ z) if self.normalised else self.lr
            W, b = W - rate * np.outer(delta, z), None if b is None else b - rate * delta
        self.W[e].append(W)
        self.b[e].append(b)
