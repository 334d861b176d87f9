"""PyTorch's activations, one table: what each is called, and as which functions a program may ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[..., Tensor]

_PLACES = (F, torch, Tensor, torch.special, torch._C._nn)


@dataclass(frozen=True)
class Signature:
    """How one of PyTorch's activations is called.

    Args:
        names: of the functions that compute it, wherever PyTorch has them.
        f: one of them out of place, of the drive and positional settings; None for an activation that `convert`
            leaves with its ordinary derivative.
        settings: names and defaults of its settings, in order.
    """

    names: tuple[str, ...]
    f: Function | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def functions(self) -> Iterator[tuple[Any, bool]]:
        """Every function, and method of a tensor, that computes it; and whether it overwrites its input."""
        for place in _PLACES:
            for name in self.names:
                for attribute, in_place in ((name, False), (f"{name}_", True)):
                    if hasattr(place, attribute):
                        yield getattr(place, attribute), in_place


def _gelu(a: Tensor, approximate: str) -> Tensor:
    return F.gelu(a, approximate=approximate)


ACTIVATIONS: dict[str, Signature] = {
    "ReLU": Signature(("relu",), torch.relu),
    "LeakyReLU": Signature(("leaky_relu",), F.leaky_relu, {"negative_slope": 0.01}),
    "ReLU6": Signature(("relu6",), F.relu6),
    "Hardtanh": Signature(("hardtanh",), F.hardtanh, {"min_val": -1.0, "max_val": 1.0}),
    "Hardsigmoid": Signature(("hardsigmoid",), F.hardsigmoid),
    "Hardswish": Signature(("hardswish",), F.hardswish),
    "Sigmoid": Signature(("sigmoid", "expit"), torch.sigmoid),
    "Tanh": Signature(("tanh",), torch.tanh),
    "SiLU": Signature(("silu",), F.silu),
    "GELU": Signature(("gelu",), _gelu, {"approximate": "none"}),
    "ELU": Signature(("elu",), F.elu, {"alpha": 1.0}),
    "Softplus": Signature(("softplus",), F.softplus, {"beta": 1.0, "threshold": 20.0}),
    "CELU": Signature(("celu",)),
    "GLU": Signature(("glu",)),
    "LogSigmoid": Signature(("logsigmoid",)),
    "Mish": Signature(("mish",)),
    "PReLU": Signature(("prelu",)),
    "RReLU": Signature(("rrelu",)),
    "SELU": Signature(("selu",)),
    "Softsign": Signature(("softsign",)),
    "Threshold": Signature(("threshold",)),
    "Hardshrink": Signature(("hardshrink",)),
    "Softshrink": Signature(("softshrink",)),
    "Tanhshrink": Signature(("tanhshrink",)),
}
"""By the class name of their modules in `torch.nn`."""


def _relu_into(a: Tensor, *, out: Tensor | None) -> Tensor:
    return torch.clamp_min(a, 0, out=out)


INTO: dict[Function, Callable[..., Tensor]] = {
    torch.relu: _relu_into,
    torch.sigmoid: torch.sigmoid,
    torch.tanh: torch.tanh,
}
"""The same functions, whose results can be put into `out`."""
