"""Dual propagation on images the slow and obvious way: every convolution and every pool an explicit matrix.

A state is a row of numbers, channel by channel and row by row of the image. A convolution is the matrix that its
definition gives, a pool the matrix that selects or averages at the current mean. The rest is `twin.Twin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import dualprop as dp
from tests.oracles.twin import Twin, Vector


@dataclass
class Link:
    """The affine map between two layers: M[row, column] = W.flat[index] for every entry, zero elsewhere.

    Attributes:
        below: shape of the state below, before the pool.
        pool: "max" or "mean", side and stride; or None.
        rows: numbers of neurons above, before the pool behind.
        columns: numbers of pooled neurons below.
        places: neurons above that share one bias.
        entries: (row, column, index).
        above: shape of the map above, before the pool behind.
        behind: the pool there, as `pool`.
    """

    below: tuple[int, ...]
    pool: tuple[str, int, int] | None
    rows: int
    columns: int
    places: int
    entries: list[tuple[int, int, int]]
    above: tuple[int, ...] = ()
    behind: tuple[str, int, int] | None = None

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """M."""
        m = np.zeros((self.rows, self.columns))
        for row, column, index in self.entries:
            m[row, column] += weight.flat[index]
        return m

    def pooling(self, z: np.ndarray) -> np.ndarray:
        """The pool's matrix at z."""
        return _pooling(self.pool, self.below, z)

    def pooling_behind(self, a: np.ndarray) -> np.ndarray:
        """The matrix of the pool behind, at a."""
        return _pooling(self.behind, self.above, a)


def _pooling(pool: tuple[str, int, int] | None, shape: tuple[int, ...], z: np.ndarray) -> np.ndarray:
    """A pool's matrix at z: each row selects the window's first maximum, or averages the window."""
    if pool is None:
        return np.eye(len(z))
    kind, size, stride = pool
    image, rows = z.reshape(shape), []
    channels, height, width = shape
    for c in range(channels):
        for i in range(0, height - size + 1, stride):
            for j in range(0, width - size + 1, stride):
                window = [(c, i + u, j + v) for u in range(size) for v in range(size)]
                row = np.zeros(shape)
                if kind == "max":
                    row[max(window, key=lambda at: image[at])] = 1  # the first among equals
                else:
                    for at in window:
                        row[at] = 1 / size**2
                rows.append(row.ravel())
    return np.stack(rows)


def _settings(pool: dp.synapses.Pool | None) -> tuple[str, int, int] | None:
    if pool is None:
        return None
    return "max" if isinstance(pool, dp.MaxPool2d) else "mean", pool.size, pool.stride


def _pooled(shape: tuple[int, ...], pool: tuple[str, int, int] | None) -> tuple[int, ...]:
    if pool is None:
        return shape
    _, size, stride = pool
    return shape[0], *(len(range(0, side - size + 1, stride)) for side in shape[1:])


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
    """What is between the layers of a net of `Conv2d` and `Dense`, perhaps `Pooled`."""
    found, below = [], in_shape
    for layer in net.chain:
        pooled = isinstance(layer.synapse, dp.Pooled)
        synapse = layer.synapse.synapse if pooled else layer.synapse
        pool, behind = _settings(synapse.pool), _settings(layer.synapse.behind if pooled else None)
        read = _pooled(below, pool)
        shape = tuple(synapse.weight.shape)
        columns = int(np.prod(read))
        if isinstance(synapse, dp.Conv2d):
            above, entries = convolution(read, shape, *synapse.geometry)
        else:
            above = shape[:1]
            entries = [(i, j, i * columns + j) for i, j in np.ndindex(*shape)]
        rows = int(np.prod(above))
        found.append(Link(below, pool, rows, columns, rows // above[0], entries, above, behind))
        below = _pooled(above, behind)
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
        sizes = [int(np.prod(_pooled(link.above, link.behind))) for link in self.links[1:]]
        self.plus = [x.copy(), *(np.zeros((len(x), size)) for size in sizes)]
        self.minus = [z.copy() for z in self.plus]

    def means(self, k: int, n: int) -> np.ndarray:
        """z̄_k of sample n."""
        return np.array([self.mean(k, n, i) for i in range(self.plus[k].shape[1])])

    def differences(self, k: int, n: int) -> np.ndarray:
        """z_k^+ - z_k^- of sample n."""
        return self.plus[k][n] - self.minus[k][n]

    def drive(self, k: int, n: int) -> Vector:
        """a_k = M P(z̄_{k-1}) z̄_{k-1} + b, and that pooled."""
        a = self.unpooled_drive(k, n)
        return list(self.links[k].pooling_behind(a) @ a)

    def unpooled_drive(self, k: int, n: int) -> np.ndarray:
        """The map before the pool behind."""
        link, z = self.links[k], self.means(k - 1, n)
        return link.matrix(self.W[k]) @ (link.pooling(z) @ z) + np.repeat(self.b[k], link.places)

    def spread(self, k: int, n: int) -> np.ndarray:
        """z_k^+ - z_k^- as it comes out of the pool behind, below; the pool's matrix is that of the drive now."""
        return self.links[k].pooling_behind(self.unpooled_drive(k, n)).T @ self.differences(k, n)

    def error(self, k: int, n: int) -> Vector:
        """d_k = P(z̄_k)^T M^T (z_{k+1}^+ - z_{k+1}^-), the pool's matrix at the mean as it is now."""
        link = self.links[k + 1]
        weights = self.W[k + 1] if self.B[k + 1] is None else self.B[k + 1]
        sent = link.matrix(weights).T @ self.spread(k + 1, n)
        return list(link.pooling(self.means(k, n)).T @ sent)

    def gradient(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The batch mean of (1/β_k)(z_k^- - z_k^+) p^T over all places, p the pooled mean below; and for b."""
        weights, biases = [], []
        batch = len(self.plus[0])
        for k in range(1, self.L + 1):
            link, dw, db = self.links[k], np.zeros_like(self.W[k]), np.zeros_like(self.b[k])
            for n in range(batch):
                delta = -self.spread(k, n) / self.beta[k] / batch
                z = self.means(k - 1, n)
                p = link.pooling(z) @ z
                for row, column, index in link.entries:
                    dw.flat[index] += delta[row] * p[column]
                for row in range(link.rows):
                    db[row // link.places] += delta[row]
            weights.append(dw)
            biases.append(db)
        return weights, biases
