"""The dense synapse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from dualprop.arguments import Count, checked
from dualprop.errors import DualpropError
from dualprop.nets.counting import counted, reporting
from dualprop.nets.kernels import products
from dualprop.nets.kernels.arena import converted
from dualprop.nets.synapses.base import Call, LowCopies
from dualprop.nets.synapses.inits import Init
from dualprop.nets.synapses.pools import Pool
from dualprop.nets.synapses.weighted import Feedback, Weighted
from dualprop.nets.synapses.weights import add_to_grad, is_computed


class Dense(Weighted):
    """A(z) = W z + b on the flattened state z, or on the flattened pool(z).

    Args:
        in_features: number of neurons below (after pooling), all dimensions but the batch together.
        out_features: number of neurons above.
        bias: whether there is a b.
        feedback: a name in `FEEDBACK`: "symmetric" (W^T), "kolen-pollack" (B^T), "random" (B^T, which stays as it
            is) or "sign" (the signs of W^T).
        init: the initial weights, a name in `INITS`.
        pool: pooling in front.
        generator: where the initial weights come from; torch's global one by default.

    Attributes:
        weight: W, shape (out_features, in_features).
        bias: b, shape (out_features,), zero at first; or None.
        feedback: B, of the shape of W; or None.

    Example:
        >>> import torch
        >>> synapse = Dense(3, 2)
        >>> z, delta = torch.randn(5, 3), torch.randn(5, 2)
        >>> synapse(z).shape, synapse.adjoint(delta, z).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    @checked
    def __init__(
        self,
        in_features: Count,
        out_features: Count,
        *,
        bias: bool = True,
        feedback: Feedback = "symmetric",
        init: Init = "glorot-uniform",
        pool: Pool | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        shape = out_features, in_features
        super().__init__(shape, bias=bias, feedback=feedback, init=init, pool=pool, generator=generator)

    @property
    def width_below(self) -> int:
        """The number of neurons below."""
        return self.in_features

    @counted("forward")
    def affine(self, p: Tensor) -> Tensor:
        """W p + b, shape (B, out_features)."""
        if torch.is_grad_enabled():
            return F.linear(p.flatten(1), self.heard("weight"), self.read("bias"))
        rows = p if p.ndim == 2 else p.flatten(1)
        return products.forward(rows, self._in_type("weight", p.dtype), self.read("bias"))

    @counted("forward")
    def linear_part(self, p: Tensor) -> Tensor:
        """W p, shape (B, out_features)."""
        if torch.is_grad_enabled():
            return F.linear(p.flatten(1), self.heard("weight"))
        return products.forward(p.flatten(1), self.upward(p.dtype), None)

    @counted("feedback")
    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """W^T delta, or B^T delta, in the given shape."""
        feedback = torch.mm(delta, self.downward(delta.dtype))
        return feedback if len(shape) == 2 else feedback.view(shape)

    def turned_weight(self) -> Tensor:
        """Wᵀ."""
        return self.weight.detach().T

    @counted("gradient")
    def outer(self, delta: Tensor, p: Tensor) -> Tensor:
        """Σ_batch delta p^T, shape (out_features, in_features)."""
        return products.outer(delta, p if p.ndim == 2 else p.flatten(1))

    @override
    def driving(self, z: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        if low is None and not self._plain(z):
            return None
        p, W, b = z.flatten(1), self._bound("weight", low), self._bound("bias", low)
        product = partial(torch.mm, p, W.t(), out=out)
        if b is not None:
            product = partial(torch.addmm, b, p, W.t(), out=out)
        return reporting("forward", len(z), len(z) * W.numel(), product)

    @override
    def sending(self, delta: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        if low is None and not self._plain(out):
            return None
        down = self._bound("weight" if self.feedback is None else "feedback", low)
        product = partial(torch.mm, delta, down, out=out.flatten(1))
        return reporting("feedback", len(delta), len(delta) * down.numel(), product)

    @override
    def moving(self, delta: Tensor, z: Tensor) -> Callable[[float], object] | None:
        if not self._plain(z):
            return None
        p, turned = z.flatten(1), delta.t()
        weights = [W.detach() for W in (self.weight, self.feedback) if W is not None and W.requires_grad]
        bias = self.bias.detach() if self.bias is not None and self.bias.requires_grad else None

        only = delta[0] if len(delta) == 1 else None

        def move(rate: float) -> None:
            for W in weights:
                W.addmm_(turned, p, alpha=rate)
            if bias is not None:
                bias.add_(delta.sum(0) if only is None else only, alpha=rate)

        return reporting("gradient", len(z), len(z) * self.weight.numel(), move) if weights else move

    @override
    def learning(self, delta: Tensor, z: Tensor) -> Call | None:
        W, b, B = self.weight, self.bias, self.feedback
        if not self._plain(self.weight) or not W.requires_grad or not W.is_contiguous():
            return None
        p, dtype = z.flatten(1), None if z.dtype is W.dtype else W.dtype
        follower = B if B is not None and B.requires_grad else None
        bias = b if b is not None and b.requires_grad else None

        def learn() -> None:
            if bias is not None:
                total = products.total(delta)
                add_to_grad(bias, total if dtype is None else total.to(dtype))
            gradient = products.outer(delta, p)
            if dtype is not None:
                gradient = converted(gradient, dtype)
            if follower is not None:
                add_to_grad(
                    follower, converted(gradient, gradient.dtype, copy=True)
                )  # clipping scales them in place
            add_to_grad(W, gradient)

        return reporting("gradient", len(z), len(z) * W.numel(), learn)

    @override
    def copies(self, dtype: torch.dtype) -> LowCopies | None:
        return super().copies(dtype) if self._plain(self.weight) else None

    def _plain(self, z: Tensor) -> bool:
        """Whether it reads z itself, and its weights are parameters of that type without hooks."""
        return self.pool is None and self.feedback_kind != "sign" and self._simple(z.dtype)

    def modules_without_weights(self) -> list[nn.Module]:
        """`torch.nn.Flatten` and `Linear`."""
        sizes = self.in_features, self.out_features
        return [nn.Flatten(), nn.Linear(*sizes, bias=self.biased, device="meta")]

    @torch.no_grad()
    def widen(self, in_features: int, out_features: int) -> None:
        """Take more neurons below and drive more above: W, b and B stay as they are, what is new is zero.

        The parameters are the same objects, of other shapes and without gradients.

        Args:
            in_features: as many as now, or more.
            out_features: as many as now, or more.

        Raises:
            DualpropError: if there would be fewer, or the weights are computed from others.

        Example:
            >>> synapse = Dense(2, 1, bias=False)
            >>> synapse.widen(3, 2)
            >>> synapse.weight.shape, float(synapse.weight[1].detach().abs().sum())
            (torch.Size([2, 3]), 0.0)
        """
        if in_features < self.in_features or out_features < self.out_features:
            raise DualpropError(
                f"synapse: ({self.extra_repr()}) cannot take {in_features} and give {out_features}"
            )
        if is_computed(self):
            raise DualpropError("synapse: has weights that are computed from others, which cannot be widened")
        for p in (self.weight, self.feedback, self.bias):
            if p is not None:
                wide = p.new_zeros((out_features, in_features)[: p.ndim])
                wide[tuple(map(slice, p.shape))] = p
                p.data, p.grad = wide, None
        self.in_features, self.out_features = self._shape = in_features, out_features

    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(out_features,), for every shape of in_features elements."""
        if math.prod(shape) != self.in_features:
            raise DualpropError(
                f"x: {math.prod(shape)} features a sample (shape {shape}), but the layer takes {self.in_features}"
            )
        return (self.out_features,)

    def extra_repr(self) -> str:
        """What `print(net)` says of this synapse."""
        return f"{self.in_features}, {self.out_features}{self.extras()}"
