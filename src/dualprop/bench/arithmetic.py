"""The floating-point operations of a step, counted from the layers' shapes. A multiply-add is two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dualprop.net import Net
from dualprop.synapses import Synapse

PRODUCTS = ("affine", "transposed", "hebbian")
"""The methods of a synapse that each make one product with its weights: drive, feedback and weight gradient."""


def products(net: Net, in_shape: tuple[int, ...], batch_size: int) -> list[int]:
    """The operations of one product of a batch with the weights of each layer 1..L.

    2 B |W_k| times the places that W_k is applied at: one for a dense layer, the map's pixels for a convolution.
    """
    shapes = net.shapes(in_shape)[1:]
    weights = [next(layer.synapse.parameters()) for layer in net.chain]  # W is a synapse's first, b has no product
    return [
        2 * batch_size * weight.numel() * math.prod(shape) // len(weight)
        for weight, shape in zip(weights, shapes, strict=True)
    ]


def needed(costs: Sequence[int]) -> int:
    """The operations of a step that makes no product twice.

    Drive and weight gradient of every layer, feedback into every layer but the first.

    Args:
        costs: what `products` says.
    """
    return 3 * sum(costs) - costs[0]


def made(net: Net, costs: Sequence[int], step: Callable[[], object]) -> int:
    """The operations that `step` makes, by watching the synapses of `net` while it runs once.

    A step that never asks a synapse for its gradient has it from autograd, which makes no product twice.
    """
    synapses = [layer.synapse for layer in net.chain]
    counts = dict.fromkeys(PRODUCTS, 0)
    try:
        for synapse, cost in zip(synapses, costs, strict=True):
            for name in PRODUCTS:
                setattr(synapse, name, _counting(synapse, name, cost, counts))
        step()
    finally:
        for synapse in synapses:
            for name in PRODUCTS:
                vars(synapse).pop(name, None)  # what is left is the class's own
    return sum(counts.values()) if counts["hebbian"] else needed(costs)


def _counting(synapse: Synapse, name: str, cost: int, counts: dict[str, int]) -> Callable[..., object]:
    method = getattr(synapse, name)

    def call(*arguments: object, **named: object) -> object:
        counts[name] += cost
        result: object = method(*arguments, **named)
        return result

    return call
