"""Dual propagation on a stream, with every state that there has ever been: nothing is overwritten, nothing bound.

A value of layer k at tick t is `history[k][t]`; the definitions are those of MATHS.md §2 and §10. One sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
}


FORGOTTEN = np.empty(0)
"""In the place of what is too long ago."""


def cross_entropy(output: np.ndarray, y: int) -> np.ndarray:
    """∂ℓ/∂a of the logits."""
    e = np.exp(output - output.max())
    return e / e.sum() - np.eye(len(output))[y]


class StreamTwin:
    """A chain of dyads on a stream, by full histories.

    Frame s is the one that came in at tick s; layer k sees it at tick s + k - 1, and its error is in layer k at
    tick s + (L - 1) + late + (L - k). Weights of tick t are those that tick t - 1 has left.

    Args:
        weights: W_1 .. W_L.
        biases: b_1 .. b_L.
        f: the name of the hidden layers' activation; the output is linear with cross-entropy.
        delayed: whether an error meets its own frame; otherwise what is there at the tick.
        late: ticks that a label is waited for.
        step: "sgd"; "normalised", divided by 1 + ‖z̄‖²; or "centred", that in W and W m + b, m the mean below of
            the frames that have been learnt from before.
        memory: frames that count in the mean m, beyond which it forgets.
    """

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray],
        f: str,
        *,
        alpha: float = 0.5,
        beta: Sequence[float],
        lr: float = 0.0,
        delayed: bool = True,
        late: int = 0,
        step: str = "sgd",
        memory: int = 1000,
    ) -> None:
        self.L = len(weights)
        self.W = {k: [w.copy()] for k, w in enumerate(weights, 1)}  # W[k][t]: as tick t reads it
        self.b = {k: [b.copy()] for k, b in enumerate(biases, 1)}
        self.f = {k: ACTIVATIONS[f if k < self.L else "linear"] for k in self.W}
        self.alpha, self.beta, self.lr = alpha, dict(enumerate(beta, 1)), lr
        self.delayed, self.late, self.kind, self.memory = delayed, late, step, memory
        self.m = {k: np.zeros(w.shape[1]) for k, w in enumerate(weights, 1)}
        self.learnt = dict.fromkeys(self.W, 0)
        self.x: list[np.ndarray] = []
        self.labels: dict[int, tuple[int, int]] = {}  # frame -> (the tick by which it has come, class)
        self.a: dict[int, list[np.ndarray]] = {k: [] for k in self.W}
        self.mean: dict[int, list[np.ndarray]] = {k: [] for k in self.W}
        self.d: dict[int, list[np.ndarray]] = {k: [] for k in self.W}  # z^+ - z^-
        self.step: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {k: [] for k in self.W}  # the gradients

    def tick(self, x: np.ndarray | None, y: int | None = None) -> None:
        t = len(self.x)
        self.x.append(self.x[-1] if x is None else x)
        if y is not None:
            self.label(t, y)
        for k in range(1, self.L + 1):
            self.a[k].append(self.W[k][t] @ self._below(k, t) + self.b[k][t])
        for k in range(1, self.L + 1):
            self._update(k, t)
        for k in range(1, self.L + 1):
            self._learn(k, t)

    def label(self, frame: int, y: int) -> None:
        """A label that is there before the tick that comes next."""
        now = len(self.x)
        turn = frame + self.L - 1 + (self.late if self.delayed else 0)
        if now <= turn or frame == now - 1 == turn:
            self.labels[frame] = (now, y)

    def widen(self, inputs: int, outputs: int) -> None:
        """Features and classes that have always been there, and been zero, but for the weights' history."""
        t, L = len(self.x), self.L
        self.x = [x if x is FORGOTTEN else np.pad(x, (0, inputs)) for x in self.x]
        self.W[1][t] = np.pad(self.W[1][t], ((0, 0), (0, inputs)))
        self.m[1] = np.pad(self.m[1], (0, inputs))
        self.W[L][t], self.b[L][t] = (
            np.pad(self.W[L][t], ((0, outputs), (0, 0))),
            np.pad(self.b[L][t], (0, outputs)),
        )
        for history in (self.a[L], self.mean[L], self.d[L]):
            history[:] = [each if each is FORGOTTEN else np.pad(each, (0, outputs)) for each in history]

    def forget(self, ticks: int) -> None:
        """What was so many ticks ago, for a stream that is too long to be kept; to look there is an error."""
        for part in (self.W, self.b, self.a, self.mean, self.d, self.step):
            for history in part.values():
                if len(history) > ticks:
                    history[-1 - ticks] = FORGOTTEN  # type: ignore[call-overload]
        if len(self.x) > ticks:
            self.x[-1 - ticks] = FORGOTTEN
            self.labels.pop(len(self.x) - 1 - ticks, None)

    def _below(self, k: int, t: int) -> np.ndarray:
        """The mean that layer k's drive of tick t is made of."""
        if k == 1:
            return self.x[t]
        return self.mean[k - 1][t - 1] if t > 0 else np.zeros_like(self.b[k - 1][0])

    def _frame(self, k: int, t: int) -> int:
        """The frame whose error is in layer k at tick t."""
        return t - (self.L - 1) - (self.late if self.delayed else 0) - (self.L - k)

    def _errs(self, k: int, t: int) -> bool:
        return self._frame(k, t) in self.labels

    def _update(self, k: int, t: int) -> None:
        f, up, down = self.f[k], self.alpha, 1 - self.alpha
        own = self._frame(k, t) + k - 1 if self.delayed else t  # the tick of the drive that the error meets
        a = self.a[k][own] if self._errs(k, t) else self.a[k][t]
        if not self._errs(k, t):
            e = np.zeros_like(a)
        elif k == self.L:
            e = -self.beta[k] * cross_entropy(f(a), self.labels[self._frame(k, t)][1])
        else:
            e = self.beta[k] / self.beta[k + 1] * self.W[k + 1][t].T @ self.d[k + 1][t - 1]
        plus, minus = f(a + up * e), f(a - down * e)
        self.d[k].append(plus - minus)
        now = self.a[k][t]
        self.mean[k].append(f(now) if self.delayed else self.alpha * plus + (1 - self.alpha) * minus)

    def _learn(self, k: int, t: int) -> None:
        W, b = self.W[k][t], self.b[k][t]
        dW, db = np.zeros_like(W), np.zeros_like(b)
        if self._errs(k, t):
            if self.delayed:
                below = self._below(k, self._frame(k, t) + k - 1)
            else:
                below = self.x[t] if k == 1 else self.mean[k - 1][t]
            db = -self.d[k][t] / self.beta[k]
            dW = np.outer(db, below)
            if self.kind == "centred":
                W, b = self._centred(k, below, W, b, db)
            else:
                rate = self.lr / (1 + below @ below) if self.kind == "normalised" else self.lr
                W, b = W - rate * dW, b - rate * db
        self.step[k].append((dW, db))
        self.W[k].append(W)
        self.b[k].append(b)

    def _centred(
        self, k: int, below: np.ndarray, W: np.ndarray, b: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A step in W and B of W (z - m) + B, B = W m + b; then the mean has the frame in it."""
        m, centred = self.m[k], below - self.m[k]
        rate = self.lr / (1 + centred @ centred)
        B = W @ m + b - rate * error
        W = W - rate * np.outer(error, centred)
        self.learnt[k] += 1
        self.m[k] = m + centred / min(self.learnt[k], self.memory)
        return W, B - W @ m

    def predict(self, x: np.ndarray) -> np.ndarray:
        for k in range(1, self.L + 1):
            x = self.f[k](self.W[k][-1] @ x + self.b[k][-1])
        return x
