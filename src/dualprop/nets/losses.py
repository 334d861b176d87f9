"""Losses: their value, their gradient, and the step by which they nudge the output layer.

A loss is per sample: a nudge must not depend on how many other samples share the batch. Only gradients of
weights are averaged over the batch.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.2 and appendix (linearised output step).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor

from dualprop.arguments import Fraction, In, checked
from dualprop.errors import DualpropError
from dualprop.nets.potentials import Potential, Softmax, softmax
from dualprop.registry import Registry


class Loss(ABC):
    """A differentiable loss ℓ(z, y) of the output z and the target y.

    A new loss needs `value` alone; `gradient` and the linearised `output_step` follow from it. `link` is the
    potential of output neurons whose drives it takes, as cross-entropy takes the logits of soft-max neurons; None
    for a loss of the states themselves. `holomorphic` says that `gradient` takes complex outputs.

    Example:
        >>> import torch
        >>> class Huber(Loss):
        ...     def value(self, z, y):
        ...         return torch.nn.functional.huber_loss(z, y, reduction="none").sum(1)
        >>> Huber().gradient(torch.tensor([[0.5, 3.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 1.0000]])
    """

    link: Potential | None = None
    holomorphic = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """ℓ per sample.

        Args:
            z: output of the net, shape (B, ...).
            y: encoded targets (see `encode`), of the same shape.

        Returns:
            The losses, shape (B,).
        """

    def check_value(self, z: Tensor, y: Tensor) -> None:
        """Refuse a `value` that is not one number for each sample.

        Args:
            z: any output, shape (B, ...).
            y: encoded targets, of the same shape.

        Raises:
            DualpropError: naming the shape that it gives.
        """
        shape = tuple(self.value(z, y).shape)
        if shape != (len(z),):
            raise DualpropError(
                f"loss: {type(self).__name__}.value gives shape {shape} for {len(z)} samples, but it must be "
                f"({len(z)},), one number for each"
            )

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """∂ℓ/∂z, of the shape of z; here by differentiating `value` alone, a graph that spans no layer."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.value(z, y).sum(), z)
        return gradient

    def output_step(
        self,
        f: Potential,
        a: Tensor,
        y: Tensor,
        up: float,
        down: float,
        drives: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both states of the output layer, for the loss linearised at the un-nudged output.

        z^+ = f(a - up ∂ℓ(f(a))), z^- = f(a + down ∂ℓ(f(a))), the stationary points of the dyadic objective with
        ℓ replaced by its tangent. An output that drives other layers has their feedback besides: `drives`.

        Args:
            f: the output layer's potential.
            a: its feed-forward drive, shape (B, ...).
            y: encoded targets, of the same shape.
            up: αβ_L, the strength of the nudge towards the target.
            down: ᾱβ_L, that of the nudge away from it.
            drives: a + α e and a - ᾱ e with the feedback e; both a by default.

        Returns:
            z^+ and z^-, both of the shape of a.
        """
        force, (toward, away) = self.gradient(f(a), y), drives or (a, a)
        return f(torch.sub(toward, force, alpha=up)), f.minus(torch.add(away, force, alpha=down))

    def smoothed(self, label_smoothing: float) -> Loss:
        """This loss with a part of every target spread evenly over the classes; `CrossEntropy` has one.

        Raises:
            DualpropError: if this loss has none, and the part is not 0.
        """
        if not label_smoothing:
            return self
        raise DualpropError(f"label_smoothing={label_smoothing:g}: only cross_entropy smooths its targets")

    def check(self, f: Potential, down: float) -> None:
        """Refuse an output layer or a nudge that this loss cannot work with.

        Args:
            f: the output layer's potential.
            down: ᾱβ_L.

        Raises:
            DualpropError: if the combination has no solution.
        """

    def encode(self, y: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Targets as floats of the output's shape; class indices become one-hot rows.

        Args:
            y: class indices (int64, shape (B,), 0..num_classes-1) or floats of the output's shape.
            shape: the output's shape, batch first.
            dtype: the output's type.

        Returns:
            The encoded targets, of shape `shape` and type `dtype`.

        Raises:
            DualpropError: for another type or shape, an index out of range, or a target that is not finite.
        """
        if y.is_floating_point():
            if y.shape != shape:
                raise DualpropError(
                    f"y: shape {tuple(y.shape)}, but float targets must have the output's shape {tuple(shape)}"
                )
            if not bool(torch.isfinite(y).all()):
                raise DualpropError("y: NaN or infinite targets")
            return y.detach().to(dtype)
        if y.dtype != torch.int64:
            raise DualpropError(f"y: type {y.dtype}, but targets must be class indices (torch.int64) or floats")
        if y.shape != shape[:1] or len(shape) != 2:
            raise DualpropError(
                f"y: shape {tuple(y.shape)}, but class indices must have shape ({shape[0]},) "
                f"for an output of shape {tuple(shape)}"
            )
        if y.device.type != "cpu" or shape[1] > _ROWS:
            _check_classes(y, shape[1])
            return torch.zeros(shape, dtype=dtype, device=y.device).scatter_(1, y.unsqueeze(1), 1)
        try:
            return _rows(shape[1], dtype).index_select(0, y)
        except IndexError:
            _check_classes(y, shape[1])
            raise


_ROWS = 1000  # classes


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _rows(count: int, dtype: torch.dtype) -> Tensor:
    """The one-hot rows of all classes."""
    return torch.eye(count, dtype=dtype)


def _check_classes(y: Tensor, count: int) -> None:
    low, high = map(int, torch.aminmax(y))
    if low < 0 or high >= count:
        raise DualpropError(f"y: class index {low if low < 0 else high}, but it must be in 0..{count - 1}")


class SquaredError(Loss):
    """ℓ = ½‖z - y‖² per sample, nudged exactly where f projects (linear, ReLU, hard sigmoid, hard tanh).

    z^+ = f((a + αβ y)/(1 + αβ)), z^- = f((a - ᾱβ y)/(1 - ᾱβ)), which needs ᾱβ < 1. For every other potential
    the linearised step is taken.
    """

    holomorphic = True

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """½‖z - y‖² per sample, shape (B,)."""
        squares = (z - y).square()
        return (squares if squares.ndim == 2 else squares.flatten(1)).sum(1).mul_(0.5)

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """The difference z - y."""
        return z - y

    def output_step(
        self,
        f: Potential,
        a: Tensor,
        y: Tensor,
        up: float,
        down: float,
        drives: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The exact stationary points, see the class; arguments as in `Loss.output_step`."""
        if not f.projects:
            return super().output_step(f, a, y, up, down, drives)
        toward, away = drives or (a, a)
        plus = torch.add(toward, y, alpha=up).div_(1 + up)
        minus = torch.sub(away, y, alpha=down).div_(1 - down)
        return f.over(plus), f.minus.over(minus)

    def check(self, f: Potential, down: float) -> None:
        """Refuse ᾱβ_L >= 1, where the maximisation over z^- has no solution."""
        if f.projects and down >= 1:
            raise DualpropError(
                f"beta: (1 - alpha) * beta of the output layer is {down:g}, "
                "but the exact step of the squared error needs it below 1"
            )


class LinearisedSquaredError(SquaredError):
    """ℓ = ½‖z - y‖² with the linearised step z^± = f(a ∓ {α, ᾱ}β (f(a) - y)): any β is allowed."""

    output_step = Loss.output_step

    def check(self, f: Potential, down: float) -> None:
        """Every output layer and every nudge will do."""


class CrossEntropy(Loss):
    """ℓ = -Σ y log softmax(z) on logits, linearised: z^± = f(a ± {α, ᾱ}β (y - softmax(f(a)))).

    Args:
        label_smoothing: ε in [0, 1): `encode` makes (1 - ε) y + ε/C of a target y over C classes.

    Raises:
        DualpropError: for another ε.

    Example:
        >>> import torch
        >>> CrossEntropy(label_smoothing=0.3).encode(torch.tensor([2]), torch.Size((1, 3)), torch.float32)
        tensor([[0.1000, 0.1000, 0.8000]])
    """

    link = Softmax()
    holomorphic = True

    @checked
    def __init__(self, *, label_smoothing: Fraction = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __repr__(self) -> str:
        return f"CrossEntropy(label_smoothing={self.label_smoothing:g})"

    def smoothed(self, label_smoothing: float) -> CrossEntropy:
        """Cross-entropy with this ε."""
        return CrossEntropy(label_smoothing=label_smoothing)

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """-Σ y log softmax(z) per sample, shape (B,)."""
        return -(y * torch.log_softmax(z, 1)).flatten(1).sum(1)

    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """The difference softmax(z) - y (targets sum to one)."""
        return softmax(z) - y

    def check(self, f: Potential, down: float) -> None:
        """Refuse a softmax layer: the loss takes the logits itself."""
        if isinstance(f, Softmax):
            raise DualpropError("loss='cross_entropy' takes logits: use output='linear', not 'softmax'")

    def encode(self, y: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Smoothed rows of probabilities; float targets must be such over dimension 1."""
        encoded = super().encode(y, shape, dtype)
        if y.is_floating_point() and (
            bool((encoded < 0).any()) or bool(((encoded.sum(1) - 1).abs() > 1e-3).any())
        ):
            raise DualpropError("y: float targets of cross_entropy must be probabilities that sum to 1")
        if not self.label_smoothing:
            return encoded
        return encoded * (1 - self.label_smoothing) + self.label_smoothing / shape[1]


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "mse": SquaredError(),
        "mse-linearised": LinearisedSquaredError(),
        "cross_entropy": CrossEntropy(),
    },
)

LossOrName = Annotated[Loss | str, In(LOSSES)]
"""A loss, or the name of one."""
