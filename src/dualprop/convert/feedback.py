"""Kolen-Pollack layers: forward through W, the signal to the input back through weights B of their own.

    y = W x + b forward;    g_x = B^T g,  g_W = g_B = Σ g x^T,  g_b = Σ g    backward.

With the same weight decay for W and B, B - W decays geometrically: by 1 - lr·decay in every step of SGD.

References:
    Kolen, Pollack, *Backpropagation without weight transport*, 1994.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList, type_before_parametrizations

from dualprop.errors import DualpropError
from dualprop.nets.synapses import is_computed


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


def _linear(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `torch.nn.Linear` computes."""
    x, weight, bias = _autocast(x, weight, bias)
    return _result(LinearWithFeedback.apply(x, weight, bias, module.feedback))


def _conv2d(module: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    """What `torch.nn.Conv2d` computes: stride, padding, dilation and groups are its geometry.

    Padding that is not the same number of zeros on both sides is added to the input first, as PyTorch does.
    """
    stride, padding, dilation, groups = geometry
    if isinstance(padding, str):
        left, right, top, bottom = module._reversed_padding_repeated_twice
        x = F.pad(x, (0, right - left, 0, bottom - top))
        padding = (top, left)
    x, weight, bias = _autocast(x, weight, bias)
    return _result(Conv2dWithFeedback.apply(x, weight, bias, module.feedback, (stride, padding, dilation, groups)))


PRODUCTS: dict[Any, Callable[..., Tensor]] = {F.linear: _linear, F.conv2d: _conv2d}
"""The products that can have feedback weights: what runs in their place, given the module as well."""

LAYERS = (nn.Linear, nn.Conv2d)
"""The modules that can have feedback weights."""


def kind_with_feedback(module: nn.Module) -> type[nn.Module] | None:
    """The kind in `LAYERS` that a module is, with that kind's own forward; None for any other module."""
    if isinstance(module, NonDynamicallyQuantizableLinear):  # part of an attention, which never calls it
        return None
    kinds = (kind for kind in LAYERS if isinstance(module, kind) and type(module).forward is kind.forward)
    return next(kinds, None)


def owners_of(modules: Iterable[nn.Module]) -> dict[Tensor, list[nn.Module]]:
    """The modules that each parameter is in."""
    owners: dict[Tensor, list[nn.Module]] = {}
    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(parameter, []).append(module)
    return owners


def symmetric(
    module: nn.Module, owners: Mapping[Tensor, list[nn.Module]], excluded: Container[nn.Module]
) -> str | None:
    """Why the products of a module keep W for the feedback, if it has weights and they do.

    Args:
        module: of any kind.
        owners: the modules that each parameter is in.
        excluded: those that are to stay as they are.
    """
    kind = type_before_parametrizations(module).__name__
    if not kind_with_feedback(module):
        own = (p for p in module._parameters.values() if p is not None)
        weighs = isinstance(module, LAYERS) or any(
            isinstance(p, UninitializedParameter) or p.ndim > 1 for p in own
        )
        inner = isinstance(module, ParametrizationList | NonDynamicallyQuantizableLinear)
        return f"{kind} (symmetric feedback)" if weighs and not inner else None
    if is_computed(module):
        return f"{kind} (weight computed from others, symmetric feedback)"
    weight: Tensor = module.weight  # type: ignore[assignment]
    if not weight.requires_grad:
        return f"{kind} (frozen, symmetric feedback)"
    for other in owners[weight]:
        if other in excluded or not kind_with_feedback(other):
            return f"{kind} (weight shared with {type(other).__name__}, symmetric feedback)"
    return None


def check_feedback(name: str, module: nn.Module) -> None:
    """Refuse a module that cannot get feedback weights now.

    Raises:
        DualpropError: naming it.
    """
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise DualpropError(f"module: {name} has no weights yet: send a batch through before it is converted")
    if hasattr(module, "feedback"):
        raise DualpropError(f"module: {name} has an attribute `feedback` already")


def add_feedback(modules: Iterable[nn.Module], generator: torch.Generator | None) -> None:
    """Register weights B of the shape, type and memory format of W, drawn as PyTorch draws W at first.

    Modules that share W share B: it gets the gradients of all of them, as W does.
    """
    made: dict[Tensor, nn.Parameter] = {}
    for module in modules:
        weight: Tensor = module.weight  # type: ignore[assignment]
        if weight not in made:
            device = weight.device if generator is None else generator.device
            drawn = torch.empty(weight.shape, dtype=weight.dtype, device=device)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            made[weight] = nn.Parameter(torch.empty_like(weight).copy_(drawn))
        module.register_parameter("feedback", made[weight])
        follow_hooks(module)


class _Following:
    """A hook of B: what W's own hooks make of their gradient, which is B's, too."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, gradient: Tensor) -> Tensor:
        for hook in list((self.module.weight._backward_hooks or {}).values()):
            made = hook(gradient)
            gradient = gradient if made is None else made
        return gradient


def follow_hooks(module: nn.Module) -> None:
    """Let B get what W's hooks make of its gradient, if W has any; once, whatever modules share the two."""
    feedback: Any = module.feedback
    own = feedback._backward_hooks or {}
    if module.weight._backward_hooks and not any(isinstance(hook, _Following) for hook in own.values()):
        feedback.register_hook(_Following(module))


def check_parameter(name: str, module: nn.Module) -> None:
    """Refuse a module whose W has been parametrised or pruned since it got its B, which would not follow.

    Raises:
        DualpropError: naming it.
    """
    if is_computed(module):
        raise DualpropError(
            f"module: the weight of {name} is computed from others since it was converted, which its feedback "
            "weights do not follow; unconvert, and convert it as it is now"
        )


def _autocast(x: Tensor, *others: Tensor | None) -> Any:
    """What autocast would make of the arguments of a product."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return (x, *others)
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in (x, *others))


def _result(y: Any) -> Tensor:
    """The one tensor that a Function makes."""
    made: Tensor = y
    return made
