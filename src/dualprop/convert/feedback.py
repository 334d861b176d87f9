"""Kolen-Pollack layers: forward through W, the signal to the input back through weights B of their own.

    y = W x + b forward;    g_x = B^T g,  g_W = g_B = Σ g x^T,  g_b = Σ g    backward.

With the same weight decay for W and B, B - W decays geometrically: by 1 - lr·decay in every step of SGD.

References:
    Kolen, Pollack, *Backpropagation without weight transport*, 1994.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dualprop.errors import DualpropError

_SYMMETRIC = ("Conv", "Bilinear", "MultiheadAttention")


class LinearWithFeedback(torch.autograd.Function):
    """x W^T + b forward, g B backward."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        """Shapes (..., n), (m, n), (m,), (m, n) -> (..., m)."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the input and B; W is not needed again."""
        x, _, _, feedback = inputs
        ctx.save_for_backward(x, feedback)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """By x, W, b and B."""
        (x, feedback), (g,) = ctx.saved_tensors, gradients
        wanted = ctx.needs_input_grad
        rows = g.reshape(-1, g.shape[-1])
        down = g @ feedback.to(g.dtype) if wanted[0] else None
        hebbian = rows.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] or wanted[3] else None
        return down, hebbian, rows.sum(0) if wanted[2] else None, _typed(hebbian, feedback)


class Conv2dWithFeedback(torch.autograd.Function):
    """W ∗ x + b forward, the transpose of B ∗ backward."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, geometry: tuple[Any, ...]
    ) -> Tensor:
        """Shapes (B, C, H, W), (O, C/groups, k, l), (O,), (O, C/groups, k, l) -> (B, O, H', W')."""
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the input and B; W is not needed again."""
        x, _, bias, feedback, ctx.geometry = inputs
        ctx.bias_sizes = None if bias is None else [len(bias)]
        ctx.save_for_backward(x, feedback)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """By x, W, b, B and the geometry. Of the weights, only the gradient by x depends on the values: B's."""
        (x, feedback), (g,) = ctx.saved_tensors, gradients
        stride, padding, dilation, groups = ctx.geometry
        wanted = ctx.needs_input_grad
        down, hebbian, by_bias = torch.ops.aten.convolution_backward(
            g,
            x,
            feedback.to(g.dtype),
            ctx.bias_sizes,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [wanted[0], wanted[1] or wanted[3], wanted[2]],
        )
        return down, hebbian, by_bias, _typed(hebbian, feedback), None


def _typed(hebbian: Tensor | None, feedback: Tensor) -> Tensor | None:
    """W's gradient in the type of B, whose gradient it is, too; autograd puts it in memory of its own."""
    return None if hebbian is None else hebbian.to(feedback.dtype)


def _linear(module: nn.Linear, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
    return _result(LinearWithFeedback.apply(x, weight, bias, feedback))


def _conv2d(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
    """Padding that is not the same number of zeros on both sides is added to the input first, as PyTorch does."""
    padding = module.padding
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0, 0)
    elif isinstance(padding, str):
        left, right, top, bottom = module._reversed_padding_repeated_twice
        x = F.pad(x, (0, right - left, 0, bottom - top))
        padding = (top, left)
    geometry = (module.stride, padding, module.dilation, module.groups)
    return _result(Conv2dWithFeedback.apply(x, weight, bias, feedback, geometry))


LAYERS: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Linear: _linear, nn.Conv2d: _conv2d}
"""The modules that can have feedback weights, and how they run with them."""


def kind_with_feedback(module: nn.Module) -> type[nn.Module] | None:
    """The kind in `LAYERS` that a module is, with that kind's own forward; None for any other module."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # part of an attention, which never calls it
        return None
    kinds = (kind for kind in LAYERS if isinstance(module, kind) and type(module).forward is kind.forward)
    return next(kinds, None)


def symmetric(module: nn.Module) -> str | None:
    """Why the products of a module keep W for the feedback, if anybody might have expected otherwise."""
    kind = type(module)
    if kind_with_feedback(module):
        frozen = not module.weight.requires_grad
        return f"{kind.__name__} (frozen, symmetric feedback)" if frozen else None
    torch_s = kind.__module__.startswith("torch.nn.modules") and kind.__name__.startswith(_SYMMETRIC)
    return f"{kind.__name__} (symmetric feedback)" if torch_s or isinstance(module, tuple(LAYERS)) else None


def check_feedback(name: str, module: nn.Module) -> None:
    """Refuse a module that cannot get feedback weights now.

    Raises:
        DualpropError: naming it.
    """
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise DualpropError(f"module: {name} has no weights yet: send a batch through before it is converted")
    if hasattr(module, "feedback"):
        raise DualpropError(f"module: {name} has an attribute `feedback` already")


def add_feedback(module: nn.Module, generator: torch.Generator | None) -> None:
    """Register weights B of the shape, type and memory format of W, drawn as PyTorch draws W at first."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    device = weight.device if generator is None else generator.device
    drawn = torch.empty(weight.shape, dtype=weight.dtype, device=device)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
    module.register_parameter("feedback", nn.Parameter(torch.empty_like(weight).copy_(drawn)))


def forward_with_feedback(base: type[nn.Module]) -> Callable[..., Any]:
    """A Linear or Conv2d whose signal to the input goes through its own weights B, in autocast's type."""
    call = next(call for kind, call in LAYERS.items() if issubclass(base, kind))

    def forward(self: Any, input: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return base.forward(self, input)
        x, weight, bias = (_autocast(t, input.device.type) for t in (input, self.weight, self.bias))
        return call(self, x, weight, bias, self.feedback)

    return forward


def _autocast(t: Tensor | None, device: str) -> Tensor | None:
    """What autocast would make of an argument of a product."""
    if t is None or t.dtype is torch.float64 or not torch.is_autocast_enabled(device):
        return t
    return t.to(torch.get_autocast_dtype(device))


def _result(y: Any) -> Tensor:
    """The one tensor that a Function makes."""
    made: Tensor = y
    return made
