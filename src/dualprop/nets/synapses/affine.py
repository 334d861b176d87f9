"""Any affine PyTorch module as a synapse, through a vector-Jacobian product that spans that module alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from dualprop.arguments import checked
from dualprop.errors import DualpropError
from dualprop.nets.synapses.base import AffineMap
from dualprop.nets.synapses.pools import Pool
from dualprop.nets.synapses.weights import (
    accumulate,
    buffers_kept,
    frozen_weights,
    gradients_by,
    is_computed,
    run,
)
from dualprop.nets.synapses.work import Measured
from dualprop.registry import Registry


class Affine(AffineMap):
    """A(z) = module(z) for an affine module: a transposed or depthwise convolution, an interpolation, one's own.

    A^T delta and the gradients come from autograd on the module alone; no graph spans two layers. That the module
    is affine is checked when its first batch comes.

    Args:
        module: affine in its input, the same in training and evaluation: no dropout, no batch norm.
        feedback: "symmetric", or "kolen-pollack" for a copy of the module with parameters drawn anew by its own
            `reset_parameters`; its weights (all but vectors) receive the gradients of the module's.
        pool: pooling in front.

    Raises:
        DualpropError: if the module is not affine, or cannot draw parameters anew where it has to.

    Example:
        >>> import torch
        >>> synapse = Affine(torch.nn.ConvTranspose2d(4, 2, 3))
        >>> synapse.out_shape((4, 5, 5))
        (2, 7, 7)
    """

    @checked
    def __init__(self, module: nn.Module, *, feedback: str = "symmetric", pool: Pool | None = None) -> None:
        super().__init__(pool)
        self.module = module
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._work = Measured()
        self.feedback: nn.Module | None = None
        TWINS[feedback](self)

    def affine(self, p: Tensor) -> Tensor:
        """module(p)."""
        drive = run(self.module, p)
        self._work.report_forward(self.module, p, drive)
        return apart(drive, p)

    def plain(self) -> list[nn.Module]:
        """Pooling and the module."""
        return self._behind_pool(self.module)

    @torch.enable_grad()
    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """The vector-Jacobian product of the module, or of its twin, with delta, by two products."""
        p = delta.new_zeros(shape).requires_grad_()
        module = self.module if self.feedback is None else self.feedback
        drive = run(module, p)
        self._work.report("forward", module, p)
        self._work.report("feedback", module, p)
        (feedback,) = torch.autograd.grad(drive, p, delta.to(drive.dtype))
        return apart(feedback.to(delta.dtype), delta)

    @torch.enable_grad()
    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """The gradients of the module's parameters, by two products; a twin's weights get those of its weights."""
        parameters = self.learnt()
        if not parameters:
            return
        with frozen_weights((self,)):
            drive = run(self.module, p.detach())
            self._work.report("forward", self.module, p)
            self._work.report("gradient", self.module, p)
            gradients = gradients_by(parameters, drive, delta.to(drive.dtype))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    accumulate(parameter, gradient)

    def learnt(self) -> list[Tensor]:
        """The module's parameters."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of module(p)."""
        if shape not in self._shapes:
            self._shapes[shape] = self._checked_shape(shape)
        return self._shapes[shape]

    @torch.no_grad()
    def _checked_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Run the module on two batches of points of a plane through zero: an affine map keeps lines straight."""
        like = next(self.module.parameters(), torch.empty(0))
        name = type(self.module).__name__
        points = torch.linspace(-2, 2, 2 * torch.Size(shape).numel(), dtype=torch.float64).sin()
        u, v = points.to(like).view(2, 1, *shape)
        try:
            with torch.autocast(like.device.type, enabled=False):  # whose rounding is no curvature
                with buffers_kept(self.module):
                    zero, one = self.module(torch.cat([0 * u, u])).double()
                with buffers_kept(self.module):
                    two, both = self.module(torch.cat([v, u - 3 * v])).double()  # batch norm tells batches apart
        except (RuntimeError, ValueError, TypeError) as error:
            raise DualpropError(f"module: {name} does not take {shape} ({str(error).splitlines()[0]})") from None
        straight = (one - zero) - 3 * (two - zero)
        tolerance = 100 * torch.finfo(like.dtype).eps ** 0.75 * (1 + float(straight.abs().max()))
        if float((both - zero - straight).abs().max()) > tolerance:
            raise DualpropError(f"module: {name} is not affine: A(u - 3v) is not A(u) - 3 A(v) + 3 A(0)")
        return tuple(zero.shape)

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Every weight of the module beside its twin's."""
        if self.feedback is None:
            return []
        _check_followed(self.module)
        twins = dict(self.feedback.named_parameters())
        return [(w, twins[name]) for name, w in self.module.named_parameters() if name in twins]


def _symmetric(synapse: Affine) -> None:
    """The module's own vector-Jacobian product."""


def _kolen_pollack(synapse: Affine) -> None:
    """A twin with weights drawn anew and without the vectors, which no feedback goes through."""
    _check_followed(synapse.module)
    twin = copy.deepcopy(synapse.module)
    drawing = [m for m in twin.modules() if any(True for _ in m.parameters(recurse=False))]
    for m in drawing:
        if not callable(getattr(m, "reset_parameters", None)):
            raise DualpropError(
                f"module: {type(m).__name__} has no reset_parameters to draw feedback weights with"
            )
        m.reset_parameters()  # type: ignore[operator]
        for name, parameter in list(m.named_parameters(recurse=False)):
            if parameter.ndim < 2:
                setattr(m, name, None)
    synapse.feedback, synapse.feedback_kind = twin, "kolen-pollack"


def _random(synapse: Affine) -> None:
    """Such a twin that stays as it is."""
    _kolen_pollack(synapse)
    assert synapse.feedback is not None
    synapse.feedback.requires_grad_(False)
    synapse.feedback_kind = "random"


def _check_followed(module: nn.Module) -> None:
    """Refuse a module whose weights move by no gradient of their own, so that a twin's cannot follow them."""
    for m in module.modules():
        if is_computed(m):
            raise DualpropError(
                f"module: the weights of a {type_before_parametrizations(m).__name__} are computed from others, "
                "which feedback weights do not follow; use feedback='symmetric'"
            )


TWINS = Registry("feedback", {"symmetric": _symmetric, "kolen-pollack": _kolen_pollack, "random": _random})


def apart(result: Tensor, of: Tensor) -> Tensor:
    """The result in memory of its own: a module may hand on what it was given, which the engine may write over."""
    shared = result.untyped_storage().data_ptr() == of.untyped_storage().data_ptr()
    return result.clone() if shared else result
