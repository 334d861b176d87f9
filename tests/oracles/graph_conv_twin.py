"""`GraphTwin` with an explicit matrix for every convolution, pool and flatten on an edge, and feedback weights B.

States are flat, one row a sample. On a sample with mean z̄ an edge is A(z̄) = Q(M P z̄ + b), with the pools'
matrices P there and Q at M P z̄ + b; what comes down is (Q N P)ᵀ δ, with N made of B where there is a B, else M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import dualprop as dp
from tests.oracles.conv_twin import Link, _pooled, _settings, convolution
from tests.oracles.graph_twin import Array, GraphTwin, Wire


@dataclass(frozen=True)
class ImageWire(Wire):
    """A `Wire` that is a `Link`; of the identity its map has no entries.

    Attributes:
        feedback: the name of B.
        link: its geometry.
    """

    feedback: str | None = None
    link: Link | None = None


class ConvGraphTwin(GraphTwin):
    """As `GraphTwin`, of `ImageWire`s, sample by sample."""

    def parts(self, wire: ImageWire, z: Array, weight: str | None) -> tuple[Array, Array, Array]:
        """P, M with these weights, and Q, at a sample's mean z."""
        link = wire.link
        P = link.pooling(z)
        Q = (
            link.pooling_behind(self.before(wire, P @ z))
            if link.behind
            else np.eye(self.map(wire, wire.weight).shape[0])
        )
        return P, self.map(wire, weight), Q

    def map(self, wire: ImageWire, weight: str | None) -> Array:
        """M."""
        if weight is None:
            return np.eye(wire.link.columns)
        m = wire.link.matrix(self.parameters[weight])
        return wire.scale * (m.T if wire.turned else m)

    def before(self, wire: ImageWire, p: Array) -> Array:
        """M p + b."""
        a = self.map(wire, wire.weight) @ p
        return a if wire.bias is None else a + np.repeat(self.parameters[wire.bias], wire.link.places)

    def drive(self, k: int) -> Array:
        a = np.zeros_like(self.plus[k])
        for wire in self.wires:
            if wire.target == k:
                for n, z in enumerate(self.mean(wire.source)):
                    P, _, Q = self.parts(wire, z, wire.weight)
                    a[n] += Q @ self.before(wire, P @ z)
        return a

    def feedback(self, k: int) -> Array:
        e = np.zeros_like(self.plus[k])
        for wire in self.wires:
            if wire.source == k:
                ratio = self.beta[k] / self.beta[wire.target]
                for n, z in enumerate(self.mean(k)):
                    P, N, Q = self.parts(wire, z, wire.feedback or wire.weight)
                    e[n] += ratio * (Q @ N @ P).T @ self.difference(wire.target)[n]
        return e

    def gradient(self) -> dict[str, Array]:
        gradient = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        for wire in self.wires:
            delta = -self.difference(wire.target) / self.beta[wire.target] / len(self.plus[0])
            for n, z in enumerate(self.mean(wire.source)):
                P, _, Q = self.parts(wire, z, wire.weight)
                p, d = P @ z, Q.T @ delta[n]
                for name in (wire.weight, wire.feedback):
                    for row, column, index in wire.link.entries if name else ():
                        ends = (p[row], d[column]) if wire.turned else (d[row], p[column])
                        gradient[name].flat[index] += wire.scale * ends[0] * ends[1]
                if wire.bias is not None:
                    for row in range(len(d)):
                        gradient[wire.bias].flat[row // wire.link.places] += d[row]
        return gradient


def _link(synapse: dp.Synapse, below: tuple[int, ...]) -> Link:
    """Of a synapse that reads states of this shape."""
    core, behind = (
        (synapse.synapse, _settings(synapse.behind)) if isinstance(synapse, dp.Pooled) else (synapse, None)
    )
    pool = _settings(core.pool)
    read = _pooled(below, pool)
    columns = int(np.prod(read))
    if isinstance(core, dp.Identity):
        return Link(below, pool, columns, columns, 1, [])
    if isinstance(core, dp.Conv2d):
        above, entries = convolution(read, tuple(core.weight.shape), *core.geometry)
    else:
        above = tuple(core.weight.shape[:1])
        entries = [(i, j, i * columns + j) for i, j in np.ndindex(*core.weight.shape)]
    rows = int(np.prod(above))
    return Link(below, pool, rows, columns, rows // above[0], entries, above, behind)


def read_images(
    rule: dp.DualProp, in_shapes: Sequence[tuple[int, ...]], losses: Sequence[str], damping: float = 0.0
) -> ConvGraphTwin:
    """The twin of a rule on a net of `Dense`, `Conv2d`, `Pooled`, `Identity` and `Transposed` edges."""
    net = rule.net
    names: Mapping[int, str] = {id(p): name for name, p in net.named_parameters()}
    shapes = net.state_shapes(in_shapes)
    wires = []
    for (source, target), synapse in zip(net.wiring.edges, net.synapses, strict=True):
        if isinstance(synapse, dp.Transposed):
            link, name = _link(synapse.tied, shapes[target]), names[id(synapse.tied.weight)]
            link = Link(shapes[source], None, link.rows, link.columns, 1, link.entries)
            wires.append(ImageWire(source, target, name, None, True, synapse.scale, None, link))
            continue
        core = synapse.synapse if isinstance(synapse, dp.Pooled) else synapse
        weight, bias, feedback = (
            names.get(id(getattr(core, part, None))) for part in ("weight", "bias", "feedback")
        )
        wires.append(ImageWire(source, target, weight, bias, False, 1.0, feedback, _link(synapse, shapes[source])))
    numbers = range(1, len(net) + 1)
    return ConvGraphTwin(
        {k: int(np.prod(shapes[k])) for k in numbers},
        {k: type(net.layers[k - 1].potential).__name__.lower() for k in numbers},
        wires,
        {name: p.detach().numpy().copy() for name, p in net.named_parameters()},
        dict(zip(net.wiring.outputs, losses, strict=True)),
        alpha=rule.nudge.alpha,
        beta=dict(zip(numbers, rule.nudge.beta, strict=True)),
        transpose=rule.nudge.transpose,
        damping=damping,
    )
