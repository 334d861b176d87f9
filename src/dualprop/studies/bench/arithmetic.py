"""The matrix products of a step and their operations, as the synapses count them; a multiply-add is two."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dualprop.nets.counting import counting
from dualprop.nets.net import Net


@dataclass(frozen=True)
class Arithmetic:
    """What a step takes.

    Attributes:
        products: those of a batch with the weights of a layer; one with several copies of the batch is several.
        operations: floating-point operations in all of them.
    """

    products: float
    operations: int


def made(step: Callable[[], object], batch_size: int) -> Arithmetic:
    """What `step` makes while it runs once.

    Args:
        step: trains one batch.
        batch_size: samples in the batch.
    """
    with counting() as counts:
        step()
    return Arithmetic(counts.total.rows / batch_size, 2 * counts.total.multiply_adds)


def needed(net: Net, in_shape: tuple[int, ...], batch_size: int) -> Arithmetic:
    """What back-propagation makes, no product twice: of shapes alone, nothing is computed.

    Args:
        net: the net that is trained.
        in_shape: of one sample.
        batch_size: samples in a batch.
    """
    shapes = copy.deepcopy(net).to("meta")
    x = torch.empty(batch_size, *in_shape, device="meta")
    return made(lambda: shapes(x).sum().backward(), batch_size)
