"""What hardware pays: which product was made when, of what, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.arguments import Count, NotNegative, check, checked
from dualprop.nets.counting import Kind, counting
from dualprop.nets.net import Net
from dualprop.nets.synapses import Synapse, Weighted


class Event(NamedTuple):
    """One product on an edge.

    Attributes:
        kind: "forward" (W p), "feedback" (W^T δ) or "gradient" (δ p^T).
        source: where the edge comes from, a name.
        target: where it leads to.
        samples: rows of the product.
        values: numbers that were sent to it: p, or δ.
        zeros: the part of them that is 0, which an event-driven device need not send.
        multiply_adds: of the product, zeros included.
        weights: numbers of W.
    """

    kind: Kind
    source: str
    target: str
    samples: int
    values: int
    zeros: float
    multiply_adds: int
    weights: int


@checked
@dataclass(frozen=True)
class Energy:
    """What a thing costs in pJ: products and bits as in 45 nm, a write is assumed.

    Args:
        multiply_add: of 8 bits.
        bit: moved from a layer to a product, as from a cache of 8 KB.
        write: of one weight.
        bits: of a value that is moved.

    References:
        Horowitz, *Computing's energy problem (and what we can do about it)*, ISSCC 2014: 0.2 + 0.03 pJ, and 10 pJ
        for 64 bits.
    """

    multiply_add: NotNegative = 0.23
    bit: NotNegative = 0.16
    write: NotNegative = 1.0
    bits: Count = 8


class Cost(NamedTuple):
    """What some steps have cost.

    Attributes:
        multiply_adds: of products on states and errors; a gradient is made where it is kept, and counts as writes.
        bits: moved from layers to products, zeros left out.
        writes: of weights, one for each in each gradient.
        picojoules: all of it.
    """

    multiply_adds: int
    bits: int
    writes: int
    picojoules: float


class Trace(counting):
    """A context that counts products, as `dualprop.counting`, and keeps an event for each that a net's edges make.

    What a module makes as an edge (`dualprop.Affine`, `dualprop.Local`) is counted and is no event.

    Args:
        net: whose edges.

    Attributes:
        events: in the order in which they were made.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> rule = dp.DualProp(net)
        >>> with dp.devices.Trace(net) as trace:
        ...     step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> [(event.kind, event.source, event.target) for event in trace.events[:3]]
        [('forward', 'x', 'layer1'), ('forward', 'layer1', 'layer2'), ('feedback', 'layer1', 'layer2')]
        >>> trace.cost(dp.devices.Energy(multiply_add=1.0, bit=0.0, write=0.0)).picojoules == 5 * (32 + 24 + 24)
        True
    """

    events: list[Event]

    def __init__(self, net: Net) -> None:
        super().__init__()
        check("net", net, Net)
        self.events = []
        wiring = net.wiring
        self._inputs = set(wiring.inputs)
        self._edges: dict[Synapse, tuple[str, str]] = {}
        for (source, target), synapse in zip(wiring.edges, net.synapses, strict=True):
            for part in synapse.parts:
                self._edges.setdefault(part, (wiring.name(source), wiring.name(target)))

    @override
    def __enter__(self) -> Trace:
        super().__enter__()
        return self

    @override
    def see(self, kind: Kind, synapse: object, operand: Tensor, multiply_adds: int) -> None:
        if isinstance(synapse, Weighted) and synapse in self._edges:
            source, target = self._edges[synapse]
            rows, values, weights = len(operand), operand.numel(), synapse.read("weight").numel()
            zeros = 1 - float(torch.count_nonzero(operand.detach())) / max(1, values)
            self.events.append(Event(kind, source, target, rows, values, zeros, multiply_adds, weights))

    def cost(self, energy: Energy | None = None) -> Cost:
        """What the events have cost.

        Args:
            energy: of each thing; see `Energy`.
        """
        energy = energy or Energy()
        products = [event for event in self.events if event.kind != "gradient"]
        learnt = [event for event in self.events if event.kind == "gradient"]
        multiply_adds = sum(event.multiply_adds for event in products)
        bits = sum(energy.bits * round(event.values * (1 - event.zeros)) for event in products)
        writes = sum(event.weights for event in learnt)
        total = energy.multiply_add * multiply_adds + energy.bit * bits + energy.write * writes
        return Cost(multiply_adds, bits, writes, total)

    def by_sample(self, samples: int, energy: Energy | None = None) -> dict[str, float]:
        """What the events have cost by sample, and how sparse is what was sent; nothing where there are none.

        Args:
            samples: that were learnt from.
            energy: of each thing; see `Energy`.

        Returns:
            "multiply_adds", "bits_moved", "weight_writes" and "picojoules" by sample; "zeros_up", the part of
            zeros in what layers (inputs left out) sent up, z̄ of dyads, and "zeros_down", in what they sent down,
            z⁺ - z⁻ of dyads.

        Example:
            >>> import torch, dualprop as dp
            >>> rule = dp.DualProp(dp.nets.mlp([4, 8, 3]))
            >>> with dp.devices.Trace(rule.net) as trace:
            ...     step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
            >>> trace.by_sample(5)["multiply_adds"]
            80.0
        """
        if not self.events:
            return {}
        cost, numbers = self.cost(energy), {}
        for name, paid in zip(("multiply_adds", "bits_moved", "weight_writes", "picojoules"), cost, strict=True):
            numbers[name] = paid / samples
        sent = {
            "zeros_up": [e for e in self.events if e.kind == "forward" and e.source not in self._inputs],
            "zeros_down": [e for e in self.events if e.kind == "feedback"],
        }
        for name, events in sent.items():
            if events:
                numbers[name] = sum(e.zeros * e.values for e in events) / sum(e.values for e in events)
        return numbers
