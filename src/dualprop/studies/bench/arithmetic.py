"""The matrix products of a step and their operations, counted from shapes; a multiply-add is two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dualprop.nets.net import Net
from dualprop.nets.synapses import Synapse

PRODUCTS = ("affine", "transposed", "hebbian", "outer")
"""The methods of a synapse that each make one product with its weights: drive, feedback and weight gradient."""


@dataclass(frozen=True)
class Arithmetic:
    """What a step takes.

    Attributes:
        products: those of a batch with the weights of a layer; one with several copies of the batch is several.
        operations: floating-point operations in all of them.
    """

    products: float
    operations: int


def costs(net: Net, in_shape: tuple[int, ...], batch_size: int) -> list[int]:
    """The operations of one product of a batch with the weights of each layer 1..L.

    2 B |W_k| times the places that W_k is applied at: one for a dense layer, the map's pixels for a convolution.
    """
    cores = [layer.synapse.core for layer in net.chain]
    drives = [core.out_shape(below) for core, below in zip(cores, net.shapes(in_shape)[:-1], strict=True)]
    return [_cost(core, batch_size * math.prod(shape)) for core, shape in zip(cores, drives, strict=True)]


def _cost(synapse: Synapse, drives: int) -> int:
    """The operations of a product that makes, or reads, so many numbers at the synapse's upper end."""
    weight = next(synapse.parameters())  # W is a synapse's first, b has no product
    return 2 * drives * weight.numel() // len(weight)


def needed(each: Sequence[int]) -> Arithmetic:
    """A step that makes no product twice.

    Drive and weight gradient of every layer, feedback into every layer but the first.

    Args:
        each: what `costs` says.
    """
    return Arithmetic(3 * len(each) - 1, 3 * sum(each) - each[0])


def made(net: Net, in_shape: tuple[int, ...], batch_size: int, step: Callable[[], object]) -> Arithmetic:
    """What `step` makes, by watching all synapses of the kinds in `net`, a rule's own too, while it runs once.

    A step that never asks a synapse for its gradient has it from autograd, which makes no product twice.

    Args:
        net: the net that is trained.
        in_shape: of one sample.
        batch_size: samples in a batch.
        step: trains one batch.
    """
    calls: list[tuple[str, int, int]] = []  # method, rows and operations of each product

    def note(name: str, synapse: Synapse, above: Tensor) -> None:
        calls.append((name, len(above), _cost(synapse, above.numel())))

    with _watching({type(layer.synapse.core) for layer in net.chain}, note):
        step()
    if not any(name in ("hebbian", "outer") for name, _, _ in calls):
        return needed(costs(net, in_shape, batch_size))
    return Arithmetic(sum(rows for _, rows, _ in calls) / batch_size, sum(cost for _, _, cost in calls))


@contextmanager
def _watching(kinds: set[type[Synapse]], note: Callable[[str, Synapse, Tensor], None]) -> Iterator[None]:
    """In which every product of synapses of these kinds is noted, with what it makes or reads at the upper end."""
    inside: list[str] = []  # a product within a product is the same one

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(synapse: Synapse, first: Tensor, *others: Any) -> Any:
            inside.append(name)
            try:
                result = method(synapse, first, *others)
            finally:
                inside.pop()
            if not inside:
                note(name, synapse, result if name == "affine" else first)
            return result

        return call

    kept = [(kind, name, vars(kind).get(name)) for kind in kinds for name in PRODUCTS if hasattr(kind, name)]
    methods = [(kind, name, watched(name, getattr(kind, name))) for kind, name, _ in kept]
    try:
        for kind, name, method in methods:
            setattr(kind, name, method)
        yield
    finally:
        for kind, name, own in kept:
            if own is None:
                delattr(kind, name)  # what is left is inherited
            else:
                setattr(kind, name, own)
