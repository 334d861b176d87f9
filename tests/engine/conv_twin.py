"""Dual propagation on images the slow and obvious way: every convolution and every pool an explicit matrix.

A state is a row of numbers, channel by channel and row by row of the image. A convolution is the matrix that its
definition gives, a pool the matrix that selects or averages at the current mean. The rest is `twin.Twin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import dualprop as dp

from .twin import Twin, Vector


@dataclass
class Link:
    """The affine map between two layers: M[row, column] = W.flat[index] for every entry, zero elsewhere.

    Attributes:
        below: shape of the state below, before the pool.
        pool: "max" or "mean", side and stride; or None.
        rows: numbers of neurons above.
        columns: numbers of pooled neurons below.
        places: neurons above that share one bias.
        entries: (row, column, index).
    """

    below: tuple[int, ...]
    pool: tuple[str, int, int] | None
    rows: int
    columns: int
    places: int
    entries: list[tuple[int, int, int]]

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """M."""
        m = np.zeros((self.rows, self.columns))
        for row, column, index in self.entries:
            m[row, column] += weight.flat[index]
        return m

    def pooling(self, z: np.ndarray) -> np.ndarray:
        """The pool's matrix at z: each row selects the window's first maximum, or averages the window."""
        if self.pool is None:
            return np.eye(len(z))
        kind, size, stride = self.pool
        image, rows = z.reshape(self.below), []
        channels, height, width = self.below
        for c in range(channels):
            for i in range(0, height - size + 1, stride):
                for j in range(0, width - size + 1, stride):
                    window = [(c, i + u, j + v) for u in range(size) for v in range(size)]
                    row = np.zeros(self.below)
                    if kind == "max":
                        row[max(window, key=lambda at: image[at])] = 1  # the first among equals
                    else:
                        for at in window:
                            row[at] = 1 / size**2
                    rows.append(row.ravel())
        return np.stack(rows)


def convolution(
    below: tuple[int, ...], weight: Sequence[int], stride: int, padding: int, dilation: int, groups: int
) -> tuple[tuple[int, ...], list[tuple[int, int, int]]]:
    """Shape above and entries of a convolution, from out[o, i, j] = Σ W[o, c, u, v] in[c', i s - p + u d, ...]."""
    channels, height, width = below
    out, depth, side = weight[0], weight[1], weight[2]
    span = dilation * (side - 1) + 1
    tall, wide = (height + 2 * padding - span) // stride + 1, (width + 2 * padding - span) // stride + 1
    entries = []
    for o in range(out):
        first = (o // (out // groups)) * (channels // groups)
        for i, j in np.ndindex(tall, wide):
            for c, u, v in np.ndindex(depth, side, side):
                r, s = i * stride - padding + u * dilation, j * stride - padding + v * dilation
                if 0 <= r < height and 0 <= s < width:
                    row = (o * tall + i) * wide + j
                    column = ((first + c) * height + r) * width + s
                    entries.append((row, column, ((o * depth + c) * side + u) * side + v))
    return (out, tall, wide), entries


def links(net: dp.Net, in_shape: tuple[int, ...]) -> list[Link]:
    """What is between the layers of a net of `Conv2d` and `Dense`."""
    found, below = [], in_shape
    for layer in net.chain:
        synapse, pool, read = layer.synapse, None, below
        if synapse.pool is not None:
            kind = "max" if isinstance(synapse.pool, dp.MaxPool2d) else "mean"
            size, stride = synapse.pool.size, synapse.pool.stride
            pool = kind, size, stride
            read = below[0], *(len(range(0, side - size + 1, stride)) for side in below[1:])
        shape = tuple(synapse.weight.shape)
        columns = int(np.prod(read))
        if isinstance(synapse, dp.Conv2d):
            above, entries = convolution(read, shape, *synapse.geometry)
        else:
            above = shape[:1]
            entries = [(i, j, i * columns + j) for i, j in np.ndindex(*shape)]
        rows = int(np.prod(above))
        found.append(Link(below, pool, rows, columns, rows // above[0], entries))
        below = above
    return found


class ConvTwin(Twin):
    """A `Twin` whose synapses are `Link`s; weights and biases keep the shapes that the library has them in."""

    def __init__(
        self,
        between: Sequence[Link],
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray],
        activations: Sequence[str],
        **settings: object,
    ) -> None:
        super().__init__(weights, biases, activations, **settings)
        self.links = [None, *between]

    def start(self, x: np.ndarray) -> None:
        """All states at zero, the input at x."""
        self.plus = [x.copy(), *(np.zeros((len(x), link.rows)) for link in self.links[1:])]
        self.minus = [z.copy() for z in self.plus]

    def means(self, k: int, n: int) -> np.ndarray:
        """z̄_k of sample n."""
        return np.array([self.mean(k, n, i) for i in range(self.plus[k].shape[1])])

    def differences(self, k: int, n: int) -> np.ndarray:
        """z_k^+ - z_k^- of sample n."""
        return self.plus[k][n] - self.minus[k][n]

    def drive(self, k: int, n: int) -> Vector:
        """a_k = M P(z̄_{k-1}) z̄_{k-1} + b."""
        link, z = self.links[k], self.means(k - 1, n)
        return list(link.matrix(self.W[k]) @ (link.pooling(z) @ z) + np.repeat(self.b[k], link.places))

    def error(self, k: int, n: int) -> Vector:
        """d_k = P(z̄_k)^T M^T (z_{k+1}^+ - z_{k+1}^-), the pool's matrix at the mean as it is now."""
        link = self.links[k + 1]
        weights = self.W[k + 1] if self.B[k + 1] is None else self.B[k + 1]
        sent = link.matrix(weights).T @ self.differences(k + 1, n)
        return list(link.pooling(self.means(k, n)).T @ sent)

    def gradient(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The batch mean of (1/β_k)(z_k^- - z_k^+) p^T over all places, p the pooled mean below; and for b."""
        weights, biases = [], []
        batch = len(self.plus[0])
        for k in range(1, self.L + 1):
            link, dw, db = self.links[k], np.zeros_like(self.W[k]), np.zeros_like(self.b[k])
            for n in range(batch):
                delta = -self.differences(k, n) / self.beta[k] / batch
                z = self.means(k - 1, n)
                p = link.pooling(z) @ z
                for row, column, index in link.entries:
                    dw.flat[index] += delta[row] * p[column]
                for row in range(link.rows):
                    db[row // link.places] += delta[row]
            weights.append(dw)
            biases.append(db)
        return weights, biases
