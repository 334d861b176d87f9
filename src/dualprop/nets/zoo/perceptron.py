"""Multi-layer perceptrons."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise

import torch

from dualprop.arguments import Count, checked
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.synapses import Dense
from dualprop.nets.synapses.inits import Init
from dualprop.nets.synapses.weighted import Feedback
from dualprop.nets.zoo._stack import Activation, chain, draw_feedback


@checked
def mlp(
    sizes: Sequence[Count],
    activation: Activation = "relu",
    *,
    output: Activation = "linear",
    init: Init = "glorot-uniform",
    feedback: Feedback = "symmetric",
    generator: torch.Generator | None = None,
) -> Net:
    """A multi-layer perceptron with zero biases.

    Args:
        sizes: neurons in each layer from the input up, for example [784, 1000, 10]; at least two.
        activation: the hidden layers' potential, a name in `POTENTIALS`.
        output: that of the output layer.
        init: the initial weights, a name in `INITS`.
        feedback: "symmetric", "sign" for the signs of W, or "kolen-pollack" for feedback weights of their own,
            "random" for such that stay as they are. The first layer sends
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
    weights = sum(below * above for below, above in pairwise(sizes))
    if 4 * weights > _memory():  # the system might grant it, and kill us when it is written to
        raise DualpropError(f"sizes={list(sizes)}: {weights:.1e} weights do not fit this machine's memory")
    synapses = [Dense(below, above, init=init, generator=generator) for below, above in pairwise(sizes)]
    draw_feedback(synapses, feedback, generator)
    return chain(synapses, activation, output)


def _memory() -> float:
    """Bytes of this machine's memory, infinite where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
