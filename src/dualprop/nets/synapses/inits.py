"""Initial weights, by name in `INITS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from dualprop.arguments import In
from dualprop.registry import Registry


def glorot_uniform(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in ±√(6/(fan_in + fan_out)), in place [Glorot, Bengio 2010]."""
    return nn.init.xavier_uniform_(weight, generator=generator)


def lecun_normal(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Normal of variance 1/fan_in, cut off at two standard deviations of the uncut normal, in place.

    The cut lowers the variance, which a wider normal makes up for, as in JAX [LeCun et al. 1998].
    """
    fan_in = weight[0].numel()
    std = 1 / math.sqrt(fan_in) / _CUT_STD
    return nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


def he_normal(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Normal of variance 2/fan_in, in place, which keeps the size of ReLUs through the layers [He et al. 2015]."""
    return nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def uniform_fan_in(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in ±1/√fan_in, in place, as PyTorch's own linear and convolutional modules are at first."""
    bound = 1 / math.sqrt(weight[0].numel())
    return nn.init.uniform_(weight, -bound, bound, generator=generator)


_CUT_STD = math.sqrt(
    1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
)  # of N(0, 1) in [-2, 2]

INITS: Registry[Callable[[Tensor, torch.Generator | None], Tensor]] = Registry(
    "init",
    {
        "glorot-uniform": glorot_uniform,
        "lecun-normal": lecun_normal,
        "he-normal": he_normal,
        "uniform-fan-in": uniform_fan_in,
    },
)

Init = Annotated[str, In(INITS)]
"""Initial weights by name."""
