"""Layers are grouped onto workers by their cost, so that the slowest worker is as quick as may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.shapes import Shape
from dualprop.nets.synapses import Synapse

Group = tuple[int, int]
"""The numbers of a worker's first and last layer."""


def costs(net: Net, in_shape: Shape) -> list[float]:
    """Multiply-adds of each layer of a chain for one sample and one learning step: up, down and learning.

    Nothing goes down below the first layer. What a layer does besides counts one for each of its neurons.

    Example:
        >>> import dualprop as dp
        >>> costs(dp.nets.mlp([4, 8, 3]), (4,))
        [72.0, 75.0]
    """
    shapes = net.shapes(in_shape)
    return [
        work * (2 if k == 1 else 3) + math.prod(shapes[k])
        for k, work in enumerate(multiply_adds(net.synapses, shapes), 1)
    ]


def multiply_adds(synapses: Iterable[Synapse], shapes: Iterable[Shape]) -> list[float]:
    """Those of each layer's drive for one sample: |W_k| at each place that W_k is applied at.

    Args:
        synapses: into consecutive layers.
        shapes: of one sample of what is below each of them.
    """
    made = []
    for synapse, shape in zip(synapses, shapes, strict=False):
        mapping = synapse if synapse.behind is None else synapse.core
        weights = [p for p in mapping.parameters() if p.ndim > 1]
        out = math.prod(mapping.out_shape(shape))
        made.append(out * weights[0].numel() / len(weights[0]) if weights else 0.0)
    return made


def grouped(costs: Sequence[float], workers: int) -> list[Group]:
    """Consecutive layers for each worker; the largest sum is as small as it can be.

    Args:
        costs: of layers 1..L.
        workers: how many, at most L.

    Raises:
        DualpropError: for more workers than layers.

    Example:
        >>> grouped([3.0, 1.0, 1.0, 1.0], 2)
        [(1, 1), (2, 4)]
    """
    depth = len(costs)
    if workers > depth:
        raise DualpropError(f"workers={workers}: must be at most {depth}, one for each layer of the net")
    best: list[list[tuple[float, list[int]]]] = [[(sum(costs[:k]), [0]) for k in range(depth + 1)]]
    for count in range(1, workers):
        row = []
        for k in range(depth + 1):
            options = [(max(best[-1][j][0], sum(costs[j:k])), [*best[-1][j][1], j]) for j in range(count, k)] or [
                (math.inf, [])
            ]
            row.append(min(options))
        best.append(row)
    starts = best[-1][depth][1]
    return [(start + 1, end) for start, end in zip(starts, [*starts[1:], depth], strict=True)]
