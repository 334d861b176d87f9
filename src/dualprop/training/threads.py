"""How many threads the products of a run are computed in.

Two threads that share a small product wait for each other every few microseconds; where another process holds one
of their cores, they wait until it lets go of that. A product that takes long enough is worth a second thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dualprop.nets.net import Net

SHARE = 2**25
"""Multiply-adds that each thread is to have of the largest product: about half a millisecond of its time."""


def choose(wanted: int | str, net: Net, in_shape: tuple[int, ...], batch_size: int) -> int:
    """The number of threads, from the sizes of the products alone.

    Args:
        wanted: a number, or "auto": as many as have their share of the largest product of a batch, 1 at least and
            what PyTorch has at most.
        net: the net that is trained.
        in_shape: the shape of a sample.
        batch_size: samples in a batch.

    Example:
        >>> import dualprop as dp
        >>> choose("auto", dp.nets.mlp([64, 128, 128, 10]), (64,), 50), choose(3, dp.nets.mlp([64, 10]), (64,), 50)
        (1, 3)
    """
    if isinstance(wanted, int):
        return wanted
    return max(1, min(torch.get_num_threads(), batch_size * largest_product(net, in_shape) // SHARE))


def largest_product(net: Net, in_shape: tuple[int, ...]) -> int:
    """The most multiply-adds that one product of a sample with the weights of a layer takes.

    |W_k| at each place that W_k is applied at: one for a dense layer, the pixels of the map for a convolution.
    """
    largest = 0
    shapes = net.shapes(in_shape)
    for (source, _), synapse in zip(net.wiring.edges, net.synapses, strict=True):
        mapping = synapse if synapse.behind is None else synapse.core
        weights = [p for p in mapping.parameters() if p.ndim > 1]
        if weights:  # feedback weights of its own are of the same size
            largest = max(
                largest, math.prod(mapping.out_shape(shapes[source])) * weights[0].numel() // len(weights[0])
            )
    return largest


@contextmanager
def computing_in(threads: int) -> Iterator[None]:
    """A context in which PyTorch computes in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
