"""A builder of nets that are graphs: skip connections, several inputs and outputs, recurrent edges."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import InstanceOf

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials import POTENTIALS, Potential
from dualprop.nets.synapses import Synapse
from dualprop.nets.wiring import Wiring


class Node(NamedTuple):
    """An input or a layer of a graph that is being built.

    Attributes:
        name: its name.
        number: k = 1..L for the k-th layer; 0, -1, ... for the inputs.
        graph: the builder that it belongs to.
    """

    name: str
    number: int
    graph: Graph

    def __repr__(self) -> str:
        return f"Node({self.name!r})"

    def __hash__(self) -> int:
        return hash((self.number, id(self.graph)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.number == other.number and self.graph is other.graph


@dataclass(frozen=True)
class Edge:
    """A synapse between two nodes.

    Attributes:
        source: the node whose state it reads.
        target: the layer that it drives.
        synapse: what is on it.
    """

    source: Node
    target: Node
    synapse: Synapse


@dataclass
class _Draft:
    name: str
    potential: Potential
    edges: list[Edge] = field(default_factory=list)


class Graph:
    """Builds a net layer by layer: `input`, `layer`, `connect`, then `net`.

    Layers are numbered in the order in which they are added; each has an edge from an input or from a layer added
    before it. Edges to the same or to an earlier layer, by `connect`, close cycles.

    Example:
        >>> import torch, dualprop as dp
        >>> g = Graph()
        >>> x = g.input("x")
        >>> h = g.layer("h", {x: dp.Dense(6, 9)}, "tanh")
        >>> r = g.layer("r", {h: dp.Dense(9, 9), x: dp.Dense(6, 9, bias=False)}, "tanh")
        >>> s = g.layer("s", {r: dp.Dense(9, 9), h: dp.Identity()}, "relu")  # a skip connection
        >>> y = g.layer("y", {s: dp.Dense(9, 4)}, "linear")
        >>> net = g.net(outputs=[y])
        >>> net(torch.zeros(2, 6)).shape
        torch.Size([2, 4])
        >>> rule = dp.DualProp(net, loss="cross_entropy")
        >>> step = rule.backward(torch.randn(5, 6), torch.randint(4, (5,)))
    """

    def __init__(self) -> None:
        self._inputs: list[Node] = []
        self._nodes: list[Node] = []
        self._drafts: list[_Draft] = []

    def __repr__(self) -> str:
        names = [", ".join(node.name for node in nodes) for nodes in (self._inputs, self._nodes)]
        return f"Graph(inputs: {names[0]}; layers: {names[1]})"

    def input(self, name: str = "x") -> Node:
        """An input of the net.

        Args:
            name: letters, digits and underscores, not that of another node.

        Raises:
            DualpropError: for another name.
        """
        self._check_name(name)
        self._inputs.append(Node(name, -len(self._inputs), self))
        return self._inputs[-1]

    def layer(self, name: str, sources: Mapping[Node, Synapse], potential: Potential | str = "relu") -> Node:
        """A layer of neurons, driven by the sum over the edges into it.

        Args:
            name: letters, digits and underscores, not that of another node.
            sources: for each node that it reads, at least one, the synapse on that edge.
            potential: of its neurons, or a name in `POTENTIALS`.

        Raises:
            DualpropError: for another name, no source, a node of another graph, or another type.
        """
        self._check_name(name)
        check("sources", sources, Mapping)
        if not sources:
            raise DualpropError(f"sources: layer {name!r} needs an edge from an input or an earlier layer")
        chosen = POTENTIALS[potential] if isinstance(potential, str) else potential
        check("potential", chosen, Potential)
        node = Node(name, len(self._nodes) + 1, self)
        draft = _Draft(name, chosen)
        for source, synapse in sources.items():
            draft.edges.append(self._edge(source, node, synapse))
        self._nodes.append(node)
        self._drafts.append(draft)
        return node

    def connect(self, source: Node, target: Node, synapse: Synapse) -> Edge:
        """One more edge: top-down, recurrent, or beside another one.

        Args:
            source: a node.
            target: a layer.
            synapse: what is on the edge; `dualprop.Transposed` of another edge ties the two.

        Raises:
            DualpropError: for a node of another graph, an input as the target, or another type.
        """
        self._check_node("target", target)
        if target.number < 1:
            raise DualpropError(f"target: {target.name!r} is an input, and only layers have edges into them")
        edge = self._edge(source, target, synapse)
        self._drafts[target.number - 1].edges.append(edge)
        return edge

    def edge(self, source: Node, target: Node) -> Edge:
        """The edge between two nodes, the first if there are several.

        Raises:
            DualpropError: if there is none.
        """
        for end, node in (("source", source), ("target", target)):
            self._check_node(end, node)
        edges = [edge for draft in self._drafts for edge in draft.edges]
        found = next((e for e in edges if (e.source, e.target) == (source, target)), None)
        if found is None:
            raise DualpropError(f"edge: there is none from {source.name!r} to {target.name!r}")
        return found

    def net(
        self, outputs: Sequence[Node], *, tolerance: float = 1e-6, sweeps: int = 1000, damping: float = 0.0
    ) -> Net:
        """The net.

        Args:
            outputs: the layers that have a loss, at least one, each once.
            tolerance: on a graph with cycles, how closely the free fixed point is found; see `Net`.
            sweeps: how many it may take.
            damping: λ in [0, 1), the part of its old state that a layer keeps in them.

        Returns:
            The net; it shares the synapses with this builder.

        Raises:
            DualpropError: for no output, an input or a node of another graph as one, or an input that is not read.

        Warns:
            UserWarning: of layers from which no way leads to an output: they learn nothing.
        """
        if not outputs or len(set(outputs)) != len(outputs):
            raise DualpropError(f"outputs={list(outputs)!r}: must name at least one layer, and each once")
        for node in outputs:
            self._check_node("outputs", node)
            if node.number < 1:
                raise DualpropError(f"outputs: {node.name!r} is an input, not a layer")
        edges = [edge for draft in self._drafts for edge in draft.edges]
        for node in self._inputs:
            if all(edge.source != node for edge in edges):
                raise DualpropError(f"input {node.name!r}: no layer reads it")
        self._warn_of_dead_ends(outputs, edges)
        wiring = Wiring(
            tuple(node.name for node in self._inputs),
            tuple(draft.name for draft in self._drafts),
            tuple((edge.source.number, edge.target.number) for edge in edges),
            tuple(node.number for node in outputs),
        )
        layers = [self._layer(draft) for draft in self._drafts]
        return Net(layers, wiring=wiring, tolerance=tolerance, sweeps=sweeps, damping=damping)

    def _layer(self, draft: _Draft) -> Layer:
        first, *others = draft.edges  # the first is from below
        also: dict[str, Synapse] = {}
        for edge in others:
            name, count = f"from_{edge.source.name}", 2
            while name in also:
                name, count = f"from_{edge.source.name}_{count}", count + 1
            also[name] = edge.synapse
        return Layer(first.synapse, draft.potential, also)

    def _warn_of_dead_ends(self, outputs: Sequence[Node], edges: Sequence[Edge]) -> None:
        alive, before = set(outputs), 0
        while len(alive) != before:
            before = len(alive)
            alive |= {edge.source for edge in edges if edge.target in alive}
        dead = [node.name for node in self._nodes if node not in alive]
        if dead:
            warnings.warn(
                f"layers {', '.join(dead)}: no way leads to an output, so they learn nothing", stacklevel=3
            )

    def _edge(self, source: Node, target: Node, synapse: Synapse) -> Edge:
        self._check_node("source", source)
        check("synapse", synapse, Synapse)
        return Edge(source, target, synapse)

    def _check_node(self, end: str, node: Node) -> None:
        check(end, node, InstanceOf[Node])
        if node.graph is not self:
            raise DualpropError(f"{end}: {node.name!r} belongs to another graph")

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
            raise DualpropError(f"name={name!r}: must be letters, digits and underscores")
        if any(node.name == name for node in (*self._inputs, *self._nodes)):
            raise DualpropError(f"name={name!r}: another node has it")
