"""Nets to start from, by name in `NETS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from dualprop.errors import DualpropError
from dualprop.net import Layer, Net
from dualprop.registry import Registry
from dualprop.synapses import FEEDBACK, Dense


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
        DualpropError: for fewer than two sizes, a size below 1 or an unknown name.

    Example:
        >>> mlp([784, 1000, 10]).shapes((784,))
        [(784,), (1000,), (10,)]
    """
    if len(sizes) < 2:
        raise DualpropError(f"sizes={list(sizes)}: a net needs an input and an output size")
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise DualpropError(f"sizes={list(sizes)}: must be whole numbers of at least 1")
    send_down = FEEDBACK[feedback]
    synapses = [Dense(below, above, generator=generator) for below, above in pairwise(sizes)]
    for synapse in synapses[1:]:
        send_down(synapse, generator)
    potentials = [activation] * (len(sizes) - 2) + [output]
    return Net(map(Layer, synapses, potentials))


def _mlp(
    in_shape: tuple[int, ...],
    num_classes: int,
    *,
    hidden: Sequence[int],
    activation: str,
    feedback: str,
    generator: torch.Generator,
) -> Net:
    return mlp([math.prod(in_shape), *hidden, num_classes], activation, feedback=feedback, generator=generator)


NETS: Registry[Callable[..., Net]] = Registry("net", {"mlp": _mlp})
