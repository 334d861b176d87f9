"""Activations whose backward pass sends a finite difference: dual propagation in reverse mode.

The derivative f'(a) δ is replaced by f(a + αδ) - f(a - ᾱδ), δ the difference that comes from above. With the
incoming gradient g of a mean over B samples, δ = -βB g, and what goes down is

    (f(a + ᾱ s g) - f(a - α s g)) / s,    s = βB.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.4 (runtime-efficient dual propagation).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.convert.batch import is_wrapped
from dualprop.nets.kernels.activations import ACTIVATIONS, INTO, Function
from dualprop.nets.kernels.arena import Arena, Open, is_large, room
from dualprop.nets.kernels.blockwise import blockwise, suits_blocks
from dualprop.nets.kernels.relu import fall


class FiniteDifference(torch.autograd.Function):
    """f(a) forward; (f(a + ᾱ s g) - f(a - α s g)) / s backward.

    Between the two passes the drive a is kept. For ReLU autograd keeps f(a), which the next layer keeps anyway:
    here a is one tensor more. Its sign would not do, for a nudge may carry a neuron across the kink.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        a: Tensor, f: Function, alpha: float, scale: float, settings: tuple[Any, ...], arena: Arena | None
    ) -> Tensor:
        """f(a, *settings), of the shape of a; in the arena, if it is large and f can be put somewhere."""
        if arena is None or f not in INTO or a.is_nested or not is_large(a) or is_wrapped(a):
            return f(a, *settings)
        with Open(arena):
            return INTO[f](a, out=room(a))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the drive alone: the states are computed again from it."""
        a, ctx.f, ctx.alpha, ctx.scale, ctx.settings, ctx.arena = inputs
        ctx.save_for_backward(a)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The finite difference, in the type of the drive."""
        (a,), (g,) = ctx.saved_tensors, gradients
        arena: Arena | None = ctx.arena
        if is_wrapped(a) or is_wrapped(g):  # inside vmap: both get the other's dimensions, to be written over
            a, g, arena = a + torch.zeros_like(g), g + torch.zeros_like(a), None
        difference: Function = _difference if a.is_nested else _CLOSED.get(ctx.f, _difference)
        with nullcontext() if arena is None else Open(arena):
            return difference(a, g, ctx.f, ctx.alpha, ctx.scale, ctx.settings), None, None, None, None, None


def _difference(
    a: Tensor, g: Tensor, f: Function, alpha: float, scale: float, settings: tuple[Any, ...]
) -> Tensor:
    """By its definition, computed in float32 at least."""

    def elementwise(a: Tensor, g: Tensor) -> tuple[Tensor]:
        plus = f(torch.add(a, g, alpha=(1 - alpha) * scale), *settings)
        minus = f(a.sub_(g, alpha=alpha * scale), *settings)
        return ((plus - minus).div_(scale),)

    return blockwise(elementwise, a, g, outputs=1)[0]


def _relu(a: Tensor, g: Tensor, f: Function, alpha: float, scale: float, settings: tuple[Any, ...]) -> Tensor:
    """ReLU's in closed form: sign(g) min(max(a/s + w|g|, 0), |g|), w = ᾱ where g > 0 and α elsewhere.

    Of a nudge of 1e-5 against drives of 1, the definition has an error of 0.5 % in float32.
    """

    def elementwise(a: Tensor, g: Tensor) -> tuple[Tensor]:
        size = g.abs()
        share = alpha * size if alpha == 0.5 else torch.where(g > 0, (1 - alpha) * size, alpha * size)
        return (fall(share.add_(a, alpha=1 / scale), size)[1].copysign_(g),)

    return blockwise(elementwise, a, g, outputs=1, dtype=a.dtype)[0] if suits_blocks(a) else elementwise(a, g)[0]


_CLOSED: dict[Any, Function] = {torch.relu: _relu}


class Call(NamedTuple):
    """One call of an activation.

    Attributes:
        kind: the activation, by the name of its module.
        drive: what it is applied to.
        f: the function out of place, of the drive and positional settings.
        settings: the settings.
        in_place: whether the drive is to be overwritten.
    """

    kind: str
    drive: Any
    f: Function
    settings: tuple[Any, ...] = ()
    in_place: bool = False


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

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], zeros: Mapping[Tensor, Any]) -> Call | None:
        """The call that these arguments make; None if they ask for something else."""
        if kwargs.get("out") is not None or len(args) > 1 + len(self.settings):
            return None
        values = list(args[1:])
        for name, default in self.settings[len(values) :]:
            values.append(kwargs.get(name, default))
        in_place = self.in_place
        settings = []
        for (name, _), value in zip(self.settings, values, strict=True):
            if name == "inplace":
                in_place = value
            else:
                settings.append(value)
        return Call(self.name, args[0] if args else kwargs["input"], self.f, tuple(settings), in_place)


class Clamp(NamedTuple):
    """A clamp between numbers: a ReLU if it has no upper bound and a lower one of zero, a Hardtanh if it has both.

    Attributes:
        bounds: the names of its bounds, in order.
        in_place: whether the function overwrites its input.
    """

    bounds: tuple[str, ...] = ("min", "max")
    in_place: bool = False
    name: str = "Hardtanh"

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], zeros: Mapping[Tensor, Any]) -> Call | None:
        """The call that these arguments make; None if it is neither."""
        given = {**dict(zip(("input", *self.bounds), args, strict=False)), **kwargs}
        low, high = given.get("min"), given.get("max")
        if given.get("out") is not None or not isinstance(low, int | float):
            return None
        if high is None and low == 0:
            return Call("ReLU", given["input"], torch.relu, (), self.in_place)
        if not isinstance(high, int | float) or low > high:
            return None
        return Call(self.name, given["input"], F.hardtanh, (low, high), self.in_place)


class Maximum(NamedTuple):
    """The larger one of a tensor and zero: a ReLU."""

    name: str = "ReLU"

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], zeros: Mapping[Tensor, Any]) -> Call | None:
        """The call that these arguments make; None if neither was made as zeros while the module runs."""
        pair = (*args, *(kwargs[name] for name in ("input", "other") if name in kwargs))
        if len(pair) != 2 or len(pair) != len(args) + len(kwargs):
            return None
        for a, zero in (pair, pair[::-1]):
            if not isinstance(a, Tensor) or not isinstance(zero, Tensor) or zero not in zeros:
                continue
            if not zero.dim() or (zero.shape == a.shape and zero.dtype == a.dtype):
                return Call(self.name, a, torch.relu)
        return None


def _settings(function: Any, settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The settings of an activation as one of its functions takes them."""
    optional = inspect.isfunction(function) and "inplace" in inspect.signature(function).parameters
    return (*settings.items(), *([("inplace", False)] if optional else []))


CALLS: dict[Any, Activation | Clamp | Maximum] = {
    **{
        function: Activation(name, known.f, _settings(function, known.settings), in_place)
        for name, known in ACTIVATIONS.items()
        if known.f is not None
        for function, in_place in known.functions()
    },
    torch.clamp: Clamp(),
    torch.Tensor.clamp: Clamp(),
    torch.clip: Clamp(),
    torch.Tensor.clip: Clamp(),
    torch.clamp_: Clamp(in_place=True),
    torch.Tensor.clamp_: Clamp(in_place=True),
    torch.clip_: Clamp(in_place=True),
    torch.Tensor.clip_: Clamp(in_place=True),
    torch.clamp_min: Clamp(("min",)),
    torch.Tensor.clamp_min: Clamp(("min",)),
    torch.clamp_min_: Clamp(("min",), in_place=True),
    torch.Tensor.clamp_min_: Clamp(("min",), in_place=True),
    torch.maximum: Maximum(),
    torch.Tensor.maximum: Maximum(),
    torch.max: Maximum(),
    torch.Tensor.max: Maximum(),
}
"""What is converted: each function that PyTorch may be asked for, as module, function or method."""

NAMES = frozenset(activation.name for activation in CALLS.values())
"""The modules with these activations, by class name in `torch.nn`."""

UNKNOWN: dict[Any, str] = {
    function: name for name, other in ACTIVATIONS.items() if other.f is None for function, _ in other.functions()
}
"""The activations that keep their ordinary derivative: functions, and the name of each one's module."""

ZEROS: dict[Any, bool] = {
    torch.zeros: False,
    torch.zeros_like: False,
    torch.Tensor.new_zeros: False,
    torch.tensor: True,
    torch.Tensor.new_tensor: True,
}
"""The functions that make zeros, and whether they do so only if that is what they are given."""

_EXPANDING = ("expand", "expand_as", "repeat", "repeat_interleave", "tile", "broadcast_to")
_MAKING = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
SIZED = frozenset(
    getattr(place, name)
    for place in (torch, torch.Tensor)
    for name in _EXPANDING + _MAKING
    if hasattr(place, name)
)
"""The functions that make a tensor of a size which need not come from their tensors."""

TABLES = frozenset(
    (torch.arange, torch.range, torch.linspace, torch.logspace, torch.eye, torch.tril_indices, torch.triu_indices)
)
"""The functions that make a table of positions, the same for every sample, whatever its size."""
