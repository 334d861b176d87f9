"""How the layers of a net are connected, without their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Wiring:
    """A directed graph: layers 1..L in an order, inputs 0, -1, -2, ..., and edges between them.

    An edge to a later layer carries activity up; one to the same or to an earlier layer closes a cycle. In a chain
    edge k - 1 leads from layer k - 1 to layer k.

    Args:
        inputs: their names; input i is number -i.
        layers: their names; layer k is `layers[k - 1]`.
        edges: (source, target), those into layer 1 first, then those into layer 2, and so on.
        outputs: the layers that have a loss.

    Example:
        >>> wiring = Wiring.chain(3)
        >>> wiring.edges, wiring.outputs, wiring.cyclic
        (((0, 1), (1, 2), (2, 3)), (3,), False)
    """

    inputs: tuple[str, ...]
    layers: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]

    @classmethod
    def chain(cls, depth: int) -> Wiring:
        """Layers 1..L on one input, each on the one below."""
        names = tuple(f"layer{k}" for k in range(1, depth + 1))
        return cls(("x",), names, tuple((k - 1, k) for k in range(1, depth + 1)), (depth,))

    @property
    def depth(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    @cached_property
    def into(self) -> tuple[tuple[int, ...], ...]:
        """The edges into each layer, by its number (none into 0)."""
        return self._by(1, range(self.depth + 1))

    @cached_property
    def out_of(self) -> dict[int, tuple[int, ...]]:
        """The edges out of each layer and input, by its number."""
        numbers = range(1 - len(self.inputs), self.depth + 1)
        return dict(zip(numbers, self._by(0, numbers), strict=True))

    def _by(self, end: int, numbers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(e for e, ends in enumerate(self.edges) if ends[end] == k) for k in numbers)

    @cached_property
    def cyclic(self) -> bool:
        """Whether an edge leads to its own or an earlier layer."""
        return any(source >= target for source, target in self.edges)

    @cached_property
    def is_chain(self) -> bool:
        """Whether each layer has one edge, from the one below, and the last is the output."""
        return self == Wiring(self.inputs[:1], self.layers, Wiring.chain(self.depth).edges, (self.depth,))

    @property
    def unlike_a_chain(self) -> str:
        """What keeps it from being a chain, for errors."""
        if len(self.inputs) > 1:
            return f"this one has inputs {', '.join(self.inputs)}"
        if len(self.outputs) > 1:
            return f"this one has outputs {', '.join(map(self.name, self.outputs))}"
        chain = Wiring.chain(self.depth).edges
        for e, edge in enumerate(self.edges):
            if edge not in chain:
                return f"this one has an edge {self.arrow(e)}"
            if edge in self.edges[:e]:
                return f"this one has two edges {self.arrow(e)}"
        return f"the output of this one is {self.name(self.outputs[0])}"

    @cached_property
    def ends(self) -> frozenset[int]:
        """The outputs that no edge leads up from."""
        return frozenset(k for k in self.outputs if all(self.edges[e][1] <= k for e in self.out_of[k]))

    def name(self, number: int) -> str:
        """The name of a layer or an input."""
        return self.layers[number - 1] if number > 0 else self.inputs[-number]

    def arrow(self, edge: int) -> str:
        """An edge by the names of its ends."""
        source, target = self.edges[edge]
        return f"{self.name(source)} -> {self.name(target)}"

    def number(self, name: str) -> int:
        """The number of a layer or an input.

        Raises:
            KeyError: for an unknown name.
        """
        return {self.name(k): k for k in self.out_of}[name]

    def __str__(self) -> str:
        lines = []
        for k, name in enumerate(self.layers, 1):
            sources = ", ".join(self.name(self.edges[e][0]) for e in self.into[k])
            lines.append(f"{k}. {name} <- {sources}{' (output)' if k in self.outputs else ''}")
        return "\n".join(lines)
