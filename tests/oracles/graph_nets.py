"""Small nets that are graphs, in double precision, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.graph import Node

Outputs = list[Node]


def _diamond(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    a, b = g.layer("a", {h: dp.Dense(5, 3)}, "tanh"), g.layer("b", {h: dp.Dense(5, 4)}, "relu")
    return [g.layer("y", {a: dp.Dense(3, 3), b: dp.Dense(4, 3, bias=False)}, "linear")]


def _skip(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 4)}, "tanh")
    i = g.layer("i", {h: dp.Dense(4, 5)}, "tanh")
    j = g.layer("j", {i: dp.Dense(5, 4), h: dp.Identity()}, "tanh")
    return [g.layer("y", {j: dp.Dense(4, 3), h: dp.Dense(4, 3)}, "linear")]


def _identity_alone(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 3)}, "tanh")
    i = g.layer("i", {h: dp.Identity()}, "tanh")
    return [g.layer("y", {i: dp.Identity()}, "linear")]


def _merge(g: dp.Graph) -> Outputs:
    """What comes down the identity to i is m's own difference, by which m's other edge learns afterwards."""
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {h: dp.Dense(5, 3)}, "tanh")
    m = g.layer("m", {h: dp.Dense(5, 3), i: dp.Identity()}, "tanh")
    return [g.layer("y", {m: dp.Dense(3, 3)}, "linear")]


def _branch(g: dp.Graph) -> Outputs:
    """The drive of i is h's own mean, which y's other edge reads as well."""
    h = g.layer("h", {g.input("x"): dp.Dense(4, 3)}, "tanh")
    i = g.layer("i", {h: dp.Identity()}, "tanh")
    return [g.layer("y", {i: dp.Dense(3, 3), h: dp.Dense(3, 3)}, "linear")]


def _two_inputs(g: dp.Graph) -> Outputs:
    x, u = g.input("x"), g.input("u")
    h = g.layer("h", {u: dp.Dense(2, 5), x: dp.Dense(4, 5)}, "tanh")
    return [g.layer("y", {h: dp.Dense(5, 3), u: dp.Dense(2, 3)}, "linear")]


def _two_outputs(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    o = g.layer("o", {h: dp.Dense(5, 3)}, "linear")
    i = g.layer("i", {o: dp.Dense(3, 4), h: dp.Dense(5, 4)}, "tanh")
    y = g.layer("y", {i: dp.Dense(4, 2)}, "linear")
    return [o, y]


def _outputs_out_of_order(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "relu")
    o = g.layer("o", {h: dp.Dense(5, 3)}, "tanh")
    y = g.layer("y", {h: dp.Dense(5, 2)}, "linear")
    return [y, o]


def _shared_input(g: dp.Graph) -> Outputs:
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {x: dp.Dense(4, 3)}, "relu")
    return [g.layer("y", {h: dp.Dense(5, 3), i: dp.Dense(3, 3), x: dp.Dense(4, 3)}, "linear")]


def _double_edge(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 3)}, "tanh")
    i = g.layer("i", {h: dp.Dense(3, 3)}, "tanh")
    g.connect(h, i, dp.Identity())
    g.connect(h, i, dp.Dense(3, 3))
    return [g.layer("y", {i: dp.Dense(3, 3)}, "linear")]


def _shared_weights(g: dp.Graph) -> Outputs:
    same = dp.Dense(4, 4)
    h = g.layer("h", {g.input("x"): same}, "tanh")
    i = g.layer("i", {h: same}, "tanh")
    return [g.layer("y", {i: dp.Dense(4, 3), h: dp.Dense(4, 3)}, "linear")]


def _self_loop(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    g.connect(h, h, dp.Dense(5, 5))
    return [g.layer("y", {h: dp.Dense(5, 3)}, "linear")]


def _ring(g: dp.Graph) -> Outputs:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {h: dp.Dense(5, 3)}, "relu")
    j = g.layer("j", {i: dp.Dense(3, 4)}, "tanh")
    g.connect(j, h, dp.Dense(4, 5))
    return [g.layer("y", {j: dp.Dense(4, 3)}, "linear")]


def _top_down(scale: float) -> Callable[[dp.Graph], Outputs]:
    def build(g: dp.Graph) -> Outputs:
        h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
        i = g.layer("i", {h: dp.Dense(5, 4)}, "tanh")
        y = g.layer("y", {i: dp.Dense(4, 3)}, "linear")
        g.connect(i, h, dp.Transposed(g.edge(h, i), scale=scale))
        g.connect(y, i, dp.Transposed(g.edge(i, y), scale=scale))
        return [y]

    return build


def _autoencoder(g: dp.Graph) -> Outputs:
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(4, 3)}, "tanh")
    return [g.layer("y", {h: dp.Transposed(g.edge(x, h), scale=0.5)}, "linear")]


ACYCLIC = {
    "diamond": _diamond,
    "skip": _skip,
    "identity-alone": _identity_alone,
    "merge": _merge,
    "branch": _branch,
    "two-inputs": _two_inputs,
    "two-outputs": _two_outputs,
    "outputs-out-of-order": _outputs_out_of_order,
    "shared-input": _shared_input,
    "double-edge": _double_edge,
    "shared-weights": _shared_weights,
    "autoencoder": _autoencoder,
}


def _tied_skip(g: dp.Graph) -> Outputs:
    """Every edge between layers has its transpose beside it, and one layer a loop."""
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {h: dp.Dense(5, 5)}, "tanh")
    y = g.layer("y", {i: dp.Dense(5, 3), h: dp.Dense(5, 3, bias=False)}, "linear")
    for source, target in ((h, i), (i, y), (h, y)):
        g.connect(target, source, dp.Transposed(g.edge(source, target)))
    g.connect(i, i, dp.Dense(5, 5))
    return [y]


def _tied_outputs(g: dp.Graph) -> Outputs:
    """An output in the middle, which drives another, and identities both ways."""
    h = g.layer("h", {g.input("x"): dp.Dense(4, 3)}, "tanh")
    o = g.layer("o", {h: dp.Identity()}, "linear")
    y = g.layer("y", {o: dp.Dense(3, 2)}, "linear")
    g.connect(o, h, dp.Identity())
    g.connect(y, o, dp.Transposed(g.edge(o, y)))
    return [y, o]


CYCLIC = {"self-loop": _self_loop, "ring": _ring, "tied": _top_down(1.0), "skew": _top_down(-1.0)}
GRAPHS = {**ACYCLIC, **CYCLIC}
TIED = {"tied": _top_down(1.0), "tied-skip": _tied_skip, "tied-outputs": _tied_outputs}
"""Whose fixed point is the equilibrium of an energy."""
ENERGIES = {**ACYCLIC, "ring": _ring, **TIED}
"""Whose edges are an energy's terms."""


def named_net(name: str, *, seed: int = 0, scale: float = 1.0, **settings: float) -> dp.Net:
    """A net of `GRAPHS` in float64; no bias is zero.

    Args:
        name: in `GRAPHS` or `ENERGIES`.
        seed: of its weights.
        scale: what they are multiplied by; a net with cycles settles where they are small.
        settings: of `Graph.net`.
    """
    g = dp.Graph()
    net = drawn_weights(g.net({**GRAPHS, **ENERGIES}[name](g), **settings), seed=seed, scale=scale)
    return with_symmetric_loops(net) if name in ENERGIES else net


def drawn_weights(net: dp.Net, *, seed: int = 0, scale: float = 1.0) -> dp.Net:
    """This net in float64, its parameters drawn anew."""
    generator, net = torch.Generator().manual_seed(seed), net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.8 * scale, 0.8 * scale, generator=generator)
    return net


@torch.no_grad()
def with_symmetric_loops(net: dp.Net) -> dp.Net:
    """This net, the weights of its loops replaced by their symmetric parts."""
    for (source, target), synapse in zip(net.wiring.edges, net.synapses, strict=True):
        if source == target:
            synapse.weight.copy_((synapse.weight + synapse.weight.mT) / 2)
    return net


def batch(
    net: dp.Net, n: int = 3, *, seed: int = 0
) -> tuple[Tensor | tuple[Tensor, ...], Tensor | tuple[Tensor, ...]]:
    """Normal numbers for every input, as many as the first edge out of it reads; classes for every output."""
    generator, wiring = torch.Generator().manual_seed(1000 + seed), net.wiring
    sizes = {number: net.synapses[edges[0]].in_features for number, edges in wiring.out_of.items() if number < 1}
    inputs = [
        torch.randn(n, sizes[-i], generator=generator, dtype=torch.float64) for i in range(len(wiring.inputs))
    ]
    shapes = net.state_shapes([tuple(x.shape[1:]) for x in inputs])
    targets = [torch.randint(shapes[k][0], (n,), generator=generator) for k in wiring.outputs]
    return net.packed(inputs), net.packed(targets)
