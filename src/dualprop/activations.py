"""Activations whose backward pass sends a finite difference: dual propagation in reverse mode.

The derivative f'(a) δ is replaced by f(a + αδ) - f(a - ᾱδ), δ the difference that comes from above. With the
incoming gradient g of a mean over B samples, δ = -βB g, and what goes down is

    (f(a + ᾱ s g) - f(a - α s g)) / s,    s = βB.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.4 (runtime-efficient dual propagation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[..., Tensor]


class FiniteDifference(torch.autograd.Function):
    """f(a) forward; (f(a + ᾱ s g) - f(a - α s g)) / s backward, computed in float32 at least."""

    @staticmethod
    def forward(a: Tensor, f: Function, alpha: float, scale: float, settings: tuple[Any, ...]) -> Tensor:
        """f(a, *settings), of the shape of a."""
        return f(a, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the drive alone: the states are computed again from it."""
        a, ctx.f, ctx.alpha, ctx.scale, ctx.settings = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The finite difference, in the type of the drive."""
        (a,), (g,) = ctx.saved_tensors, gradients
        full = torch.promote_types(a.dtype, torch.float32)
        nudge = g.to(full) * ctx.scale
        plus = ctx.f(torch.add(a.to(full), nudge, alpha=1 - ctx.alpha), *ctx.settings)
        minus = ctx.f(torch.sub(a.to(full), nudge, alpha=ctx.alpha), *ctx.settings)
        return ((plus - minus) / ctx.scale).to(a.dtype), None, None, None, None


class Activation(NamedTuple):
    """A function that PyTorch calls, and how to call it out of place.

    Attributes:
        name: that of the module with this activation.
        f: the function out of place, of the drive and positional settings.
        settings: names and defaults of its settings, in order; "inplace" among them if it has that.
        in_place: whether the function always overwrites its input.
    """

    name: str
    f: Function
    settings: tuple[tuple[str, Any], ...] = ()
    in_place: bool = False


def _gelu(a: Tensor, approximate: str) -> Tensor:
    return F.gelu(a, approximate=approximate)


_INPLACE = ("inplace", False)
_SLOPE, _ALPHA = ("negative_slope", 0.01), ("alpha", 1.0)
_BOUNDS = (("min_val", -1.0), ("max_val", 1.0))

CALLS: dict[Any, Activation] = {
    F.relu: Activation("ReLU", torch.relu, (_INPLACE,)),
    torch.relu: Activation("ReLU", torch.relu),
    torch.Tensor.relu: Activation("ReLU", torch.relu),
    torch.relu_: Activation("ReLU", torch.relu, in_place=True),
    torch.Tensor.relu_: Activation("ReLU", torch.relu, in_place=True),
    F.leaky_relu: Activation("LeakyReLU", F.leaky_relu, (_SLOPE, _INPLACE)),
    F.leaky_relu_: Activation("LeakyReLU", F.leaky_relu, (_SLOPE,), in_place=True),
    F.relu6: Activation("ReLU6", F.relu6, (_INPLACE,)),
    F.hardtanh: Activation("Hardtanh", F.hardtanh, (*_BOUNDS, _INPLACE)),
    F.hardtanh_: Activation("Hardtanh", F.hardtanh, _BOUNDS, in_place=True),
    F.hardsigmoid: Activation("Hardsigmoid", F.hardsigmoid, (_INPLACE,)),
    F.hardswish: Activation("Hardswish", F.hardswish, (_INPLACE,)),
    torch.sigmoid: Activation("Sigmoid", torch.sigmoid),
    torch.Tensor.sigmoid: Activation("Sigmoid", torch.sigmoid),
    F.sigmoid: Activation("Sigmoid", torch.sigmoid),
    torch.sigmoid_: Activation("Sigmoid", torch.sigmoid, in_place=True),
    torch.Tensor.sigmoid_: Activation("Sigmoid", torch.sigmoid, in_place=True),
    torch.tanh: Activation("Tanh", torch.tanh),
    torch.Tensor.tanh: Activation("Tanh", torch.tanh),
    F.tanh: Activation("Tanh", torch.tanh),
    torch.tanh_: Activation("Tanh", torch.tanh, in_place=True),
    torch.Tensor.tanh_: Activation("Tanh", torch.tanh, in_place=True),
    F.silu: Activation("SiLU", F.silu, (_INPLACE,)),
    F.gelu: Activation("GELU", _gelu, (("approximate", "none"),)),
    F.elu: Activation("ELU", F.elu, (_ALPHA, _INPLACE)),
    F.elu_: Activation("ELU", F.elu, (_ALPHA,), in_place=True),
    F.softplus: Activation("Softplus", F.softplus, (("beta", 1.0), ("threshold", 20.0))),
}
"""What is converted: each function that PyTorch may be asked for, as module, function or method."""

NAMES = frozenset(activation.name for activation in CALLS.values())
"""The modules with these activations, by class name in `torch.nn`."""

_KEPT = ("CELU", "GLU", "LogSigmoid", "Mish", "PReLU", "RReLU", "SELU", "Softsign", "Threshold")
_SHRINKING = ("Hardshrink", "Softshrink", "Tanhshrink")
UNKNOWN: dict[Any, str] = {
    getattr(place, name): module
    for module in _KEPT + _SHRINKING
    for place in (F, torch, torch.Tensor)
    for name in (module.lower(), f"{module.lower()}_")
    if hasattr(place, name)
}
"""The activations that keep their ordinary derivative: functions, and the name of each one's module."""
