"""Convolutional nets with pools behind their synapses, as equilibrium propagation has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from dualprop.arguments import Count, CountOrZero, Several, checked
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.synapses import Conv2d, Dense, Pooled, Synapse, Weighted
from dualprop.nets.synapses.inits import Init
from dualprop.nets.synapses.pools import PoolOrName
from dualprop.nets.synapses.weighted import Feedback
from dualprop.nets.zoo._stack import Activation, chain, check_image, draw_feedback, named_pool


@checked
def hopfield_cnn(
    num_classes: Count = 10,
    in_shape: Several[Count] = (3, 32, 32),
    activation: Activation = "half-hard-sigmoid",
    *,
    channels: Sequence[Count] = (128, 256, 512, 512),
    pool: PoolOrName = "max",
    padding: Sequence[CountOrZero] = (1, 1, 1, 0),
    output: Activation = "linear",
    init: Init = "uniform-fan-in",
    feedback: Feedback = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """3 x 3 convolutions with a pool behind each, and a dense read-out: the net of equilibrium propagation.

    A layer's neurons are those of the pooled map, z_k = f(pool(W z_{k-1} + b)). Weights are as there; biases are
    zero, where those of the papers are drawn alike.

    Args:
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        channels: output channels of each convolution.
        pool: a name in `POOLS`, of 2 x 2 windows, or a pool of one's own.
        padding: rows of zeros around the image that each convolution reads, one number for each.
        output: the output layer's potential.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own in all but the first layer;
            "random" for such that stay as they are, "sign" for the signs of W.
        generator: where the initial weights come from, W before B; torch's global one by default.

    Returns:
        The net; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image too small for the pools, a list of another length, a number below 1 or an
            unknown name.

    Example:
        >>> hopfield_cnn(channels=(8, 16), padding=(1, 0), in_shape=(1, 28, 28)).shapes((1, 28, 28))
        [(1, 28, 28), (8, 14, 14), (16, 6, 6), (10,)]

    References:
        Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz, *Scaling Equilibrium Propagation to Deep ConvNets
        by Drastically Reducing Its Gradient Estimator Bias*, Frontiers in Neuroscience 2021. With "softmax"
        pools: Laborieux, Zenke, *Holomorphic Equilibrium Propagation*, NeurIPS 2022.
    """
    if not channels:
        raise DualpropError("channels=[]: the net needs at least one convolution")
    if len(padding) != len(channels):
        raise DualpropError(
            f"padding={list(padding)}: must be a whole number of at least 0 for each of channels={list(channels)}"
        )
    pooling = named_pool(pool)
    check_image(in_shape, pooling, padding)
    made: dict[str, Any] = {"init": init, "generator": generator}
    weighted: list[Weighted] = [
        Conv2d(below, above, 3, padding=rows, **made)
        for (below, above), rows in zip(pairwise([in_shape[0], *channels]), padding, strict=True)
    ]
    synapses: list[Synapse] = [Pooled(convolution, pooling) for convolution in weighted]
    shape: tuple[int, ...] = in_shape
    for synapse in synapses:
        shape = synapse.out_shape(shape)
    weighted.append(Dense(math.prod(shape), num_classes, **made))
    draw_feedback(weighted, feedback, generator)
    return chain([*synapses, weighted[-1]], activation, output)
