"""Synapses: the affine maps between layers, their adjoints and their Hebbian gradients.

A synapse knows the states at its two ends and nothing else. `synapse(z)` is A(z) = W z + b, `adjoint` is A^T,
`add_grad` adds the gradient of <delta, A(z)>, that is the outer product of what lies at the two ends.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualprop import products
from dualprop.errors import DualpropError
from dualprop.registry import Registry


def accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add `gradient` to `parameter.grad`, as autograd does for a leaf."""
    gradient = gradient.to(parameter.dtype)
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)


class Synapse(nn.Module, ABC):
    """An affine map A between the states of two neighbouring layers.

    Shapes: z is (B, *in_shape), A(z) is (B, *out_shape(in_shape)).
    """

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The drive A(z) = W z + b, shape (B, *out_shape)."""

    @abstractmethod
    def adjoint(self, delta: Tensor, z: Tensor) -> Tensor:
        """The feedback A^T delta, without the bias.

        Args:
            delta: what the layer above sends down, shape (B, *out_shape).
            z: the state below, shape (B, *in_shape): the point at which pooling in front is linearised.

        Returns:
            The feedback, of the shape of z.
        """

    @abstractmethod
    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        """Add the gradient of Σ_batch <delta, A(z)> by every parameter that requires one to its `.grad`.

        Args:
            delta: shape (B, *out_shape).
            z: shape (B, *in_shape).
        """

    @abstractmethod
    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of A(z), given that of z.

        Raises:
            DualpropError: if this synapse does not take such a z.
        """


def _symmetric(synapse: Dense, generator: torch.Generator | None) -> None:
    """No weights of its own: the feedback goes through W^T."""


def _kolen_pollack(synapse: Dense, generator: torch.Generator | None) -> None:
    """Weights B of the shape of W, drawn independently of it."""
    synapse.feedback = nn.Parameter(synapse.draw(generator))


FEEDBACK = Registry("feedback", {"symmetric": _symmetric, "kolen-pollack": _kolen_pollack})


class Dense(Synapse):
    """A(z) = W z + b on the flattened state z.

    With `feedback="kolen-pollack"` the feedback is B^T delta with weights B of its own. B receives the same
    gradient as W, so that with the same weight decay B - W decays geometrically [Kolen, Pollack 1994].

    Args:
        in_features: number of neurons below, all dimensions but the batch together.
        out_features: number of neurons above.
        bias: whether there is a b.
        feedback: "symmetric" (W^T) or "kolen-pollack" (B^T).
        generator: where the initial weights come from; torch's global one by default.

    Attributes:
        weight: W, shape (out_features, in_features); Glorot uniform at first, as is B.
        bias: b, shape (out_features,), zero at first; or None.
        feedback: B, of the shape of W; or None.

    Example:
        >>> import torch
        >>> synapse = Dense(3, 2)
        >>> z, delta = torch.randn(5, 3), torch.randn(5, 2)
        >>> synapse(z).shape, synapse.adjoint(delta, z).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    bias: nn.Parameter | None
    feedback: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        feedback: str = "symmetric",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, int) or value < 1:
                raise DualpropError(f"{name}={value!r}: must be a whole number of at least 1")
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(self.draw(generator))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if bias else None)
        self.register_parameter("feedback", None)
        FEEDBACK[feedback](self, generator)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """New random weights of the shape of W: Glorot uniform, as W and B are at first."""
        return nn.init.xavier_uniform_(torch.empty(self.out_features, self.in_features), generator=generator)

    def forward(self, z: Tensor) -> Tensor:
        """W z + b, shape (B, out_features)."""
        if torch.is_grad_enabled():
            return F.linear(z.flatten(1), self.weight, self.bias)
        return products.forward(z.flatten(1), self.weight, self.bias)

    def adjoint(self, delta: Tensor, z: Tensor) -> Tensor:
        """W^T delta, or B^T delta, in the shape of z."""
        weight = self.weight if self.feedback is None else self.feedback
        return products.adjoint(delta, weight).view_as(z)

    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        """Σ_batch delta z^T to W and B, Σ_batch delta to b."""
        if self.bias is not None and self.bias.requires_grad:
            accumulate(self.bias, delta.sum(0))
        hebbian = [p for p in (self.weight, self.feedback) if p is not None and p.requires_grad]
        if hebbian:
            gradient = products.outer(delta, z.flatten(1))
            del delta, z  # the engine keeps neither: they make room for the gradient in full precision
            for parameter in hebbian[1:]:
                accumulate(parameter, gradient.clone())  # its own memory: clipping scales gradients in place
            accumulate(hebbian[0], gradient)

    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(out_features,), for every in_shape of in_features elements."""
        if math.prod(in_shape) != self.in_features:
            raise DualpropError(
                f"x: {math.prod(in_shape)} features a sample (shape {in_shape}), "
                f"but the layer takes {self.in_features}"
            )
        return (self.out_features,)

    def extra_repr(self) -> str:
        """What `print(net)` says of this synapse."""
        own = "" if self.feedback is None else ", feedback=kolen-pollack"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{own}"
