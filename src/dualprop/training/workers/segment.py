"""The dyads of some consecutive layers of a chain, at one batch."""

from __future__ import annotations

from collections.abc import Sequence

from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.nets.net import Layer


class Segment:
    """Layers of neurons, the links into them, and what stands below.

    Args:
        layers: the layers of the net.
        first: the number of the first of them.

    Attributes:
        below: the neurons whose mean comes from elsewhere.
        neurons: from the first layer up.
        links: into each of them.
    """

    __slots__ = ("below", "links", "neurons")

    def __init__(self, layers: Sequence[Layer], first: int) -> None:
        self.below = below = Neurons(first - 1, None)
        self.neurons: list[Neurons] = []
        self.links: list[Link] = []
        for k, layer in enumerate(layers, first):
            neurons = Neurons(k, layer.potential)
            link = Link(layer.synapse, below, neurons)
            below.out.append(link)
            neurons.into.append(link)
            self.neurons.append(neurons)
            self.links.append(link)
            below = neurons
