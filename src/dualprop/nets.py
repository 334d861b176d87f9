"""Nets to start from, by name in `NETS`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from dualprop.errors import DualpropError, at_least_one, check_type
from dualprop.net import Layer, Net
from dualprop.registry import Registry
from dualprop.synapses import FEEDBACK, POOLS, Conv2d, Dense, Pool, Pooled, Synapse, Weighted

_INIT = "lecun-normal"  # of the VGGs
_HOPFIELD_INIT = "uniform-fan-in"


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
    _draw_feedback(synapses, feedback, generator)
    return _chain(synapses, activation, output)


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
    pool: Pool | str = "max",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """3 x 3 convolutions in groups, a 2 x 2 pool after each group, then dense layers, on logits.

    LeCun-normal weights and zero biases. A pool belongs to the synapse that it stands in front of.

    Args:
        groups: output channels of the convolutions of each group.
        dense: neurons of the hidden dense layers.
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image; each group halves the sides, rounding down.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        pool: a name in `POOLS`, or a pool of one's own, which may be of another size.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own in all but the first layer.
        generator: where the initial weights come from, W before B; torch's global one by default.

    Returns:
        The net; it takes x of shape (B, *in_shape).

    Raises:
        DualpropError: for an image too small for the pools, a number below 1 or an unknown name.
    """
    at_least_one(num_classes=num_classes)
    pooling = _pool(pool)
    _check_image(in_shape, pooling, [1] * len(groups))
    synapses: list[Weighted] = []
    channels, height, width = in_shape
    for group in groups:
        for place, out_channels in enumerate(group):
            in_front = pooling if synapses and place == 0 else None
            synapses.append(
                Conv2d(channels, out_channels, 3, padding=1, init=_INIT, pool=in_front, generator=generator)
            )
            channels = out_channels
        _, height, width = pooling.out_shape((channels, height, width))
    sizes = [channels * height * width, *dense, num_classes]
    for place, (below, above) in enumerate(pairwise(sizes)):
        in_front = None if place else pooling
        synapses.append(Dense(below, above, init=_INIT, pool=in_front, generator=generator))
    _draw_feedback(synapses, feedback, generator)
    return _chain(synapses, activation, "linear")


def _pool(pool: Pool | str) -> Pool:
    """A pool by name, over windows of 2 x 2."""
    made = POOLS[pool](2) if isinstance(pool, str) else pool
    check_type("pool", made, Pool)
    return made


def _check_image(in_shape: tuple[int, ...], pool: Pool, padding: Sequence[int]) -> None:
    """Refuse an image that does not last to the end of the 3 x 3 convolutions with these paddings, pooled each."""
    side = 1
    for rows in reversed(padding):
        side = max(1, (side - 1) * pool.stride + pool.size + 2 - 2 * rows)
    if len(in_shape) != 3 or in_shape[0] < 1 or min(in_shape[1:]) < side:
        raise DualpropError(
            f"in_shape={tuple(in_shape)}: must be (channels, height, width), "
            f"at least {side} x {side} for {len(padding)} pools"
        )


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


def hopfield_cnn(
    num_classes: int = 10,
    in_shape: tuple[int, int, int] = (3, 32, 32),
    activation: str = "half-hard-sigmoid",
    *,
    channels: Sequence[int] = (128, 256, 512, 512),
    pool: Pool | str = "max",
    padding: Sequence[int] = (1, 1, 1, 0),
    output: str = "linear",
    feedback: str = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """3 x 3 convolutions with a pool behind each, and a dense read-out: the net of equilibrium propagation.

    A layer's neurons are those of the pooled map, z_k = f(pool(W z_{k-1} + b)). Weights are uniform in ±1/√fan_in
    as there; biases are zero, where those of the papers are drawn alike.

    Args:
        num_classes: neurons of the output layer.
        in_shape: channels, height and width of an image.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        channels: output channels of each convolution.
        pool: a name in `POOLS`, of 2 x 2 windows, or a pool of one's own.
        padding: rows of zeros around the image that each convolution reads, one number for each.
        output: the output layer's potential.
        feedback: "symmetric", or "kolen-pollack" for feedback weights of their own in all but the first layer.
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
    at_least_one(num_classes=num_classes)
    if not channels or len(padding) != len(channels):
        raise DualpropError(
            f"padding={list(padding)}: must be one number for each of channels={list(channels)}, at least one"
        )
    pooling = _pool(pool)
    made: dict[str, Any] = {"init": _HOPFIELD_INIT, "generator": generator}
    weighted: list[Weighted] = [
        Conv2d(below, above, 3, padding=rows, **made)
        for (below, above), rows in zip(pairwise([in_shape[0], *channels]), padding, strict=True)
    ]
    _check_image(in_shape, pooling, padding)
    synapses: list[Synapse] = [Pooled(convolution, pooling) for convolution in weighted]
    shape: tuple[int, ...] = in_shape
    for synapse in synapses:
        shape = synapse.out_shape(shape)
    weighted.append(Dense(math.prod(shape), num_classes, **made))
    _draw_feedback(weighted, feedback, generator)
    return _chain([*synapses, weighted[-1]], activation, output)


def _draw_feedback(synapses: Sequence[Weighted], feedback: str, generator: torch.Generator | None) -> None:
    """Feedback weights of their own, if so, for all but the first; after all W."""
    send_down = FEEDBACK[feedback]
    for synapse in synapses[1:]:
        send_down(synapse, generator)


def _chain(synapses: Sequence[Synapse], activation: str, output: str) -> Net:
    """A net of these synapses."""
    potentials = [activation] * (len(synapses) - 1) + [output]
    return Net(map(Layer, synapses, potentials))


@dataclass(frozen=True)
class NetKind:
    """An entry of `NETS`: a kind of net, made to fit samples and classes.

    Args:
        make: makes it from num_classes, in_shape and options.
        sizes: the hidden layers' neurons where the user chooses none, handed on as `hidden`; None for a net that
            has sizes of its own.
        pools: whether it has a `pool` to choose.

    Example:
        >>> NETS["vgg16"].pools, NETS["mlp"].pools
        (True, False)
        >>> NETS["mlp"]((1, 28, 28), 10, hidden=[32]).shapes((1, 28, 28))
        [(1, 28, 28), (32,), (10,)]
    """

    make: Callable[..., Net]
    sizes: tuple[int, ...] | None = None
    pools: bool = False

    def __call__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        *,
        hidden: Sequence[int] | None = None,
        pool: Pool | str | None = None,
        **options: Any,
    ) -> Net:
        """The net.

        Args:
            in_shape: the shape of a sample.
            num_classes: neurons of the output layer.
            hidden: neurons of the hidden layers, None for the net's own.
            pool: its pooling, None for the net's own.
            options: `activation`, `feedback`, `generator` and whatever else it has.

        Raises:
            DualpropError: for sizes or a pool that the net does not leave to choose, or what `make` refuses.
        """
        name = self.make.__name__.lstrip("_")
        if hidden is not None and self.sizes is None:
            raise DualpropError(f"hidden={list(hidden)}: {name} has sizes of its own; leave it out")
        if pool is not None and not self.pools:
            raise DualpropError(f"pool={pool!r}: {name} has no pooling; leave it out")
        chosen: dict[str, Any] = {}
        if self.sizes is not None:
            chosen["hidden"] = self.sizes if hidden is None else hidden
        if pool is not None:
            chosen["pool"] = pool
        return self.make(num_classes, in_shape, **chosen, **options)


def _mlp(num_classes: int, in_shape: tuple[int, ...], hidden: Sequence[int], **options: Any) -> Net:
    return mlp([math.prod(in_shape), *hidden, num_classes], **options)


NETS: Registry[NetKind] = Registry(
    "net",
    {
        "mlp": NetKind(_mlp, sizes=(256, 256)),
        "vgg_like": NetKind(vgg_like, pools=True),
        "vgg11": NetKind(vgg11, pools=True),
        "vgg16": NetKind(vgg16, pools=True),
        "hopfield_cnn": NetKind(hopfield_cnn, pools=True),
    },
)
