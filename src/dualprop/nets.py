"""Nets to start from, by name in `NETS`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from dualprop.errors import DualpropError, at_least_one
from dualprop.net import Layer, Net
from dualprop.registry import Registry
from dualprop.synapses import FEEDBACK, Conv2d, Dense, MaxPool2d, Weighted

_INIT = "lecun-normal"  # of the VGGs


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    *,
    output: str = "linear",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """A multi-layer perceptron with Glorot uniform weights and zero biases.

    Args:
        sizes: neurons in each layer from the input up, for example [784, 1000, 10]; at least two.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        output: that of the output layer.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own. The first layer sends
            nothing down and has none.
        generator: where the initial weights come from; torch's global one by default. W is drawn before B,
            so that both kinds of net start from the same W.

    Returns:
        The net; it takes x of shape (B, sizes[0]), or any shape with as many elements a sample.

    Raises:
        DualpropError: for fewer than two sizes, a size below 1, an unknown name, or more weights than the
            machine's memory holds.

    Example:
        >>> mlp([784, 1000, 10]).shapes((784,))
        [(784,), (1000,), (10,)]
    """
    if len(sizes) < 2:
        raise DualpropError(f"sizes={list(sizes)}: a net needs an input and an output size")
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise DualpropError(f"sizes={list(sizes)}: must be whole numbers of at least 1")
    weights = sum(below * above for below, above in pairwise(sizes))
    if 4 * weights > _memory():  # the system might grant it, and kill us when it is written to
        raise DualpropError(f"sizes={list(sizes)}: {weights:.1e} weights do not fit this machine's memory")
    synapses = [Dense(below, above, generator=generator) for below, above in pairwise(sizes)]
    return _chain(synapses, activation, output, feedback, generator)


def _memory() -> float:
    """Bytes of this machine's memory, infinite where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def vgg(
    groups: Sequence[Sequence[int]],
    dense: Sequence[int],
    num_classes: int = 10,
    in_shape: tuple[int, int, int] = (3, 32, 32),
    activation: str = "relu",
    *,
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """3 x 3 convolutions in groups, a 2 x 2 max-pool after each group, then dense layers, on logits.

    LeCun-normal weights and zero biases. A pool belongs to the synapse that it stands in front of.

    Args:
        groups: output channels of the convolutions of each group.
        dense: neurons of the hidden dense layers.
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image; each group halves the sides, rounding down.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own in all but the first layer.
        generator: where the initial weights come from, W before B; torch's global one by default.

    Returns:
        The net; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image too small for the pools, a number below 1 or an unknown name.
    """
    at_least_one(num_classes=num_classes)
    if len(in_shape) != 3 or in_shape[0] < 1 or min(in_shape[1:]) < 2 ** len(groups):
        raise DualpropError(
            f"in_shape={tuple(in_shape)}: must be (channels, height, width), "
            f"at least {2 ** len(groups)} x {2 ** len(groups)} for {len(groups)} max-pools"
        )
    pool = MaxPool2d(2)
    synapses: list[Weighted] = []
    channels, height, width = in_shape
    for group in groups:
        for place, out_channels in enumerate(group):
            in_front = pool if synapses and place == 0 else None
            synapses.append(
                Conv2d(channels, out_channels, 3, padding=1, init=_INIT, pool=in_front, generator=generator)
            )
            channels = out_channels
        height, width = height // 2, width // 2
    sizes = [channels * height * width, *dense, num_classes]
    for place, (below, above) in enumerate(pairwise(sizes)):
        in_front = None if place else pool
        synapses.append(Dense(below, above, init=_INIT, pool=in_front, generator=generator))
    return _chain(synapses, activation, "linear", feedback, generator)


def vgg_like(num_classes: int = 10, in_shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Net:
    """Five convolutions 128-128-256-256-512 with a max-pool after each, one dense layer; options as in `vgg`.

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


def _chain(
    synapses: Sequence[Weighted], activation: str, output: str, feedback: str, generator: torch.Generator | None
) -> Net:
    """A net of these synapses, with feedback weights of their own drawn after all W in all but the first."""
    send_down = FEEDBACK[feedback]
    for synapse in synapses[1:]:
        send_down(synapse, generator)
    potentials = [activation] * (len(synapses) - 1) + [output]
    return Net(map(Layer, synapses, potentials))


def _mlp(in_shape: tuple[int, ...], num_classes: int, *, hidden: Sequence[int] | None, **options: Any) -> Net:
    sizes = (256, 256) if hidden is None else hidden
    return mlp([math.prod(in_shape), *sizes, num_classes], **options)


def _named(make: Callable[..., Net]) -> Callable[..., Net]:
    """A net whose layers have published sizes, as an entry of `NETS`."""

    def made(in_shape: tuple[int, ...], num_classes: int, *, hidden: Sequence[int] | None, **options: Any) -> Net:
        if hidden is not None:
            raise DualpropError(f"hidden={list(hidden)}: {make.__name__} has sizes of its own; leave it out")
        return make(num_classes, in_shape, **options)

    return made


NETS: Registry[Callable[..., Net]] = Registry(
    "net", {"mlp": _mlp, "vgg_like": _named(vgg_like), "vgg11": _named(vgg11), "vgg16": _named(vgg16)}
)
