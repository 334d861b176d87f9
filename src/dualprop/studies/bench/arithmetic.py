"""The matrix products of a step and their operations, as the synapses count them; a multiply-add is two."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from dualprop.nets.counting import counting
from dualprop.nets.devices import Energy, Trace
from dualprop.nets.net import Net


@dataclass(frozen=True)
class Arithmetic:
    """What a step takes.

    Attributes:
        products: those of a batch with the weights of a layer; one with several copies of the batch is several.
        operations: floating-point operations in all of them.
        costs: what hardware would pay, if that was asked for; see `dualprop.devices.Trace.by_sample`.
    """

    products: float
    operations: int
    costs: Mapping[str, float] = field(default_factory=dict)


def made(
    step: Callable[[], object], batch_size: int, net: Net | None = None, energy: Energy | None = None
) -> Arithmetic:
    """What `step` makes while it runs once.

    Args:
        step: trains one batch.
        batch_size: samples in the batch.
        net: whose edges make it, and
        energy: what that costs; None for nothing of costs.
    """
    counts = counting() if net is None or energy is None else Trace(net)
    with counts:
        step()
    costs = counts.by_sample(batch_size, energy) if isinstance(counts, Trace) else {}
    return Arithmetic(counts.total.rows / batch_size, 2 * counts.total.multiply_adds, costs)


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
