"""Stacks of convolutions with pools in front of their synapses: the VGGs for small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from dualprop.arguments import Count, Several, checked
from dualprop.nets.net import Net
from dualprop.nets.synapses import Conv2d, Dense, Weighted
from dualprop.nets.synapses.inits import Init
from dualprop.nets.synapses.pools import PoolOrName
from dualprop.nets.synapses.weighted import Feedback
from dualprop.nets.zoo._stack import Activation, chain, check_image, draw_feedback, named_pool


@checked
def vgg(
    groups: Sequence[Sequence[Count]],
    dense: Sequence[Count],
    num_classes: Count = 10,
    in_shape: Several[Count] = (3, 32, 32),
    activation: Activation = "relu",
    *,
    pool: PoolOrName = "max",
    init: Init = "lecun-normal",
    feedback: Feedback = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """3 x 3 convolutions in groups, a 2 x 2 pool after each group, then dense layers, on logits.

    Biases are zero. A pool belongs to the synapse that it stands in front of.

    Args:
        groups: output channels of the convolutions of each group.
        dense: neurons of the hidden dense layers.
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image; each group halves the sides, rounding down.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        pool: a name in `POOLS`, or a pool of one's own, which may be of another size.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own in all but the first layer;
            "random" for such that stay as they are, "sign" for the signs of W.
        generator: where the initial weights come from, W before B; torch's global one by default.

    Returns:
        The net; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image too small for the pools, a number below 1 or an unknown name.
    """
    pooling = named_pool(pool)
    check_image(in_shape, pooling, [1] * len(groups))
    synapses: list[Weighted] = []
    channels, height, width = in_shape
    for group in groups:
        for place, out_channels in enumerate(group):
            in_front = pooling if synapses and place == 0 else None
            synapses.append(
                Conv2d(channels, out_channels, 3, padding=1, init=init, pool=in_front, generator=generator)
            )
            channels = out_channels
        _, height, width = pooling.out_shape((channels, height, width))
    sizes = [channels * height * width, *dense, num_classes]
    for place, (below, above) in enumerate(pairwise(sizes)):
        in_front = None if place else pooling
        synapses.append(Dense(below, above, init=init, pool=in_front, generator=generator))
    draw_feedback(synapses, feedback, generator)
    return chain(synapses, activation, "linear")


def vgg_like(num_classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Net:
    """Five convolutions 128-128-256-256-512 with a pool after each, one dense layer; options as in `vgg`.

    Example:
        >>> len(vgg_like(num_classes=100)), vgg_like().shapes((3, 32, 32))[-2:]
        (6, [(512, 2, 2), (10,)])
    """
    return vgg([[128], [128], [256], [256], [512]], [], num_classes, in_shape, **options)


def vgg11(num_classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Net:
    """VGG11 for small images: 64 | 128 | 256 x 2 | 512 x 2 | 512 x 2, dense 4096-4096; options as in `vgg`."""
    return vgg([[64], [128], [256] * 2, [512] * 2, [512] * 2], [4096, 4096], num_classes, in_shape, **options)


def vgg16(num_classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Net:
    """VGG16 for small images, convolutions 64 x 2 | 128 x 2 | 256 x 3 | 512 x 3 | 512 x 3, dense 4096-4096.

    Options as in `vgg`. The net of the paper's main tables [Høier, Staudt, Zach, ICML 2023].
    """
    groups = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]
    return vgg(groups, [4096, 4096], num_classes, in_shape, **options)
