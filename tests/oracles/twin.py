"""Dual propagation the slow and obvious way: loops over samples, neurons and layers, as MATHS.md has it.

Nothing is cached, nothing is vectorised and nothing of the library is used. States, weights and drives are
NumPy arrays read and written one number at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Vector = list[float]


def _each(f: Callable[[float], float]) -> Callable[[Vector], Vector]:
    return lambda drives: [f(a) for a in drives]


def _softmax(drives: Vector) -> Vector:
    weights = [math.exp(a - max(drives)) for a in drives]
    return [w / sum(weights) for w in weights]


ACTIVATIONS: dict[str, Callable[[Vector], Vector]] = {
    "linear": _each(lambda a: a),
    "relu": _each(lambda a: a if a > 0 else 0.0),
    "softmax": _softmax,
    "hard-sigmoid": _each(lambda a: min(max(a, 0.0), 1.0)),
    "hard-tanh": _each(lambda a: min(max(a, -1.0), 1.0)),
    "leaky-relu": _each(lambda a: a if a > 0 else 0.01 * a),
    "sigmoid": _each(lambda a: 1 / (1 + math.exp(-a))),
    "tanh": _each(math.tanh),
}
PROJECTIONS = ("linear", "relu", "hard-sigmoid", "hard-tanh")


class Twin:
    """A net of dyads of MATHS §1-§3, §5, §6 on one batch.

    Index k = 0..L in every list; entry 0 of the weights is unused.

    Args:
        weights: W_1 .. W_L, W[i, j] from neuron j below to neuron i above.
        biases: b_1 .. b_L.
        activations: names of f_1 .. f_L.
        feedback: B_1 .. B_L, of the shapes of W; W itself where None.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray],
        activations: Sequence[str],
        *,
        alpha: float,
        beta: Sequence[float],
        loss: str,
        transpose: bool = False,
        feedback: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        self.L = len(weights)
        self.W = [np.zeros((0, 0)), *(w.copy() for w in weights)]
        self.b = [np.zeros(0), *(b.copy() for b in biases)]
        own = feedback or [None] * self.L
        self.B = [None, *(None if b is None else b.copy() for b in own)]
        self.f = [None, *(ACTIVATIONS[name] for name in activations)]
        self.output = activations[-1]
        self.alpha, self.beta = alpha, [math.nan, *beta]
        self.loss, self.transpose = loss, transpose
        self.plus: list[np.ndarray] = []
        self.minus: list[np.ndarray] = []

    def start(self, x: np.ndarray) -> None:
        """All states at zero, the input at x."""
        sizes = [len(b) for b in self.b]
        self.plus = [x.copy(), *(np.zeros((len(x), size)) for size in sizes[1:])]
        self.minus = [z.copy() for z in self.plus]

    def mean(self, k: int, n: int, i: int) -> float:
        """z̄ of neuron i of layer k in sample n."""
        weight = 1 - self.alpha if self.transpose else self.alpha
        return weight * self.plus[k][n, i] + (1 - weight) * self.minus[k][n, i]

    def difference(self, k: int, n: int, i: int) -> float:
        """z^+ - z^- of neuron i of layer k in sample n."""
        return self.plus[k][n, i] - self.minus[k][n, i]

    def drive(self, k: int, n: int) -> Vector:
        """a_k = W z̄_{k-1} + b."""
        above, below = self.W[k].shape
        drives = []
        for i in range(above):
            a = self.b[k][i]
            for j in range(below):
                a += self.W[k][i, j] * self.mean(k - 1, n, j)
            drives.append(a)
        return drives

    def error(self, k: int, n: int) -> Vector:
        """d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-), through B where there is one."""
        weights = self.W[k + 1] if self.B[k + 1] is None else self.B[k + 1]
        above, below = weights.shape
        errors = []
        for j in range(below):
            d = 0.0
            for i in range(above):
                d += weights[i, j] * self.difference(k + 1, n, i)
            errors.append(d)
        return errors

    def hidden(self, k: int, n: int) -> tuple[Vector, Vector]:
        """z_k^± = f_k(a_k + α r d_k), f_k(a_k - ᾱ r d_k)."""
        a, d = self.drive(k, n), self.error(k, n)
        r = self.beta[k] / self.beta[k + 1]
        up = [a[i] + self.alpha * r * d[i] for i in range(len(a))]
        down = [a[i] - (1 - self.alpha) * r * d[i] for i in range(len(a))]
        return self.f[k](up), self.f[k](down)

    def top(self, n: int, y: Vector | None) -> tuple[Vector, Vector]:
        """The output layer of sample n; y is None while the loss does not nudge."""
        a, f = self.drive(self.L, n), self.f[self.L]
        if y is None:
            return f(a), f(a)
        up, down = self.alpha * self.beta[self.L], (1 - self.alpha) * self.beta[self.L]
        if self.loss == "mse" and self.output in PROJECTIONS:
            plus = [(a[i] + up * y[i]) / (1 + up) for i in range(len(a))]
            minus = [(a[i] - down * y[i]) / (1 - down) for i in range(len(a))]
            return f(plus), f(minus)
        said = f(a)
        if self.loss == "cross_entropy":
            said = _softmax(said)
        force = [said[i] - y[i] for i in range(len(a))]
        plus = [a[i] - up * force[i] for i in range(len(a))]
        minus = [a[i] + down * force[i] for i in range(len(a))]
        return f(plus), f(minus)

    def update(self, layers: Sequence[int], y: np.ndarray | None) -> None:
        """Update these layers at once, all of them from the states before."""
        new = []
        for k in layers:
            for n in range(len(self.plus[0])):
                target = None if y is None else [float(t) for t in y[n]]
                new.append((k, n, *(self.top(n, target) if k == self.L else self.hidden(k, n))))
        for k, n, plus, minus in new:
            for i in range(len(plus)):
                self.plus[k][n, i], self.minus[k][n, i] = plus[i], minus[i]

    def feed_forward(self) -> None:
        """z_k^± = f_k(a_k) below the output layer."""
        for k in range(1, self.L):
            for n in range(len(self.plus[0])):
                z = self.f[k](self.drive(k, n))
                for i in range(len(z)):
                    self.plus[k][n, i] = self.minus[k][n, i] = z[i]

    def top_down(self, y: np.ndarray) -> None:
        """Nudge layer L, then k = L-1 .. 1."""
        for k in range(self.L, 0, -1):
            self.update([k], y)

    def once_more(self, y: np.ndarray) -> None:
        """k = 1 .. L-1, L, L-1 .. 1 from the states as they are."""
        for k in range(1, self.L):
            self.update([k], y)
        self.top_down(y)

    def sweeps(self, count: int, y: np.ndarray) -> None:
        """MATHS §5, DP with n sweeps."""
        self.feed_forward()
        self.top_down(y)
        for _ in range(count - 1):
            self.once_more(y)

    def ticks(self, count: int, y: np.ndarray, done: int = 0) -> None:
        """MATHS §5, P-DP: all layers at once, the loss from tick L on; `done` ticks have been before these."""
        for tick in range(done + 1, done + count + 1):
            self.update(range(1, self.L + 1), y if tick >= self.L else None)

    def in_order(self, order: Sequence[int], y: np.ndarray) -> None:
        """MATHS §5, R-DP-T."""
        for k in order:
            self.update([k], y)

    def gradient(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The batch mean of (1/β_k)(z_k^- - z_k^+) z̄_{k-1}^T and of (1/β_k)(z_k^- - z_k^+), k = 1..L."""
        batch = len(self.plus[0])
        weights, biases = [], []
        for k in range(1, self.L + 1):
            dw, db = np.zeros_like(self.W[k]), np.zeros_like(self.b[k])
            for n in range(batch):
                for i in range(dw.shape[0]):
                    delta = -self.difference(k, n, i) / self.beta[k] / batch
                    db[i] += delta
                    for j in range(dw.shape[1]):
                        dw[i, j] += delta * self.mean(k - 1, n, j)
            weights.append(dw)
            biases.append(db)
        return weights, biases

    def descend(self, lr: float, decay: float = 0.0) -> None:
        """One step of gradient descent with weight decay on W and b, and on B by the gradient of W."""
        weights, biases = self.gradient()
        for k in range(1, self.L + 1):
            self.b[k] -= lr * (biases[k - 1] + decay * self.b[k])
            self.W[k] -= lr * (weights[k - 1] + decay * self.W[k])
            if self.B[k] is not None:
                self.B[k] -= lr * (weights[k - 1] + decay * self.B[k])
