"""Residual nets for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dualprop.arguments import Count, checked
from dualprop.errors import DualpropError
from dualprop.nets.graph import Graph, Node
from dualprop.nets.net import Net
from dualprop.nets.synapses import INITS, AvgPool2d, Conv2d, Dense, Identity, Local

GROUPS = 8


@checked
def resnet8(
    num_classes: Count = 10,
    in_shape: tuple[int, ...] = (3, 32, 32),
    activation: str = "relu",
    *,
    width: Count = 16,
    stages: Count = 3,
    init: str = "lecun-normal",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """Eight layers: a 3 x 3 convolution, three residual blocks of two, at widths w, 2w and 4w, a dense read-out.

    With another number of blocks it has another number of layers.

    z' = f(N(W_2 f(N(W_1 z))) + S(z)): each convolution has group norm N behind it, together one `Local` edge; the
    skip S is the identity, or a 1 x 1 convolution of stride 2 where a block halves the image. The read-out reads
    the mean over the image.

    Args:
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image; its sides multiples of 2^(stages-1).
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        width: w, a multiple of 8.
        stages: residual blocks, each but the first of twice the width and half the sides.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric"; group norm has no feedback weights of its own.
        generator: where the initial weights come from; torch's global one by default.

    Returns:
        The net, a graph; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image or a width that does not fit, another feedback, or an unknown name.

    Example:
        >>> net = resnet8(in_shape=(3, 16, 16), width=8)
        >>> len(net), net.shapes((3, 16, 16))[-2]
        (8, (32, 4, 4))

    References:
        He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016, section 4.2; group norm in
        place of batch norm, for samples must not meet.
    """
    shrink = 2 ** (stages - 1)
    if len(in_shape) != 3 or in_shape[1] != in_shape[2] or in_shape[1] % shrink:
        raise DualpropError(
            f"in_shape={tuple(in_shape)}: must be (channels, side, side), the side a multiple of {shrink}"
        )
    if width % GROUPS:
        raise DualpropError(f"width={width}: must be a multiple of {GROUPS}")
    if feedback != "symmetric":
        raise DualpropError(f"feedback={feedback!r}: group norm on the edges goes with 'symmetric' alone")
    draw = INITS[init]
    drawing: dict[str, Any] = {"init": init, "generator": generator}

    def normed(below: int, above: int, stride: int = 1) -> Local:
        convolution = nn.Conv2d(below, above, 3, stride, padding=1, bias=False)
        with torch.no_grad():
            draw(convolution.weight, generator)
        return Local(nn.Sequential(convolution, nn.GroupNorm(GROUPS, above)))

    g = Graph()
    z: Node = g.layer("stem", {g.input("x"): normed(in_shape[0], width)}, activation)
    below = width
    for stage in range(1, stages + 1):
        above, stride = width * 2 ** (stage - 1), 1 if stage == 1 else 2
        inner = g.layer(f"block{stage}a", {z: normed(below, above, stride)}, activation)
        skip = Identity() if stride == 1 else Conv2d(below, above, 1, stride=2, bias=False, **drawing)
        z = g.layer(f"block{stage}", {inner: normed(above, above), z: skip}, activation)
        below = above
    pool = AvgPool2d(in_shape[1] // shrink)
    return g.net([g.layer("y", {z: Dense(below, num_classes, pool=pool, **drawing)}, "linear")])
