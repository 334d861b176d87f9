"""Synapses with one tensor of weights, and feedback weights of their own or none."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from typing_extensions import override

from dualprop.arguments import In
from dualprop.errors import DualpropError
from dualprop.nets import crossing
from dualprop.nets.kernels import products
from dualprop.nets.synapses.base import AffineMap, LowCopies
from dualprop.nets.synapses.inits import INITS
from dualprop.nets.synapses.pools import Pool
from dualprop.nets.synapses.weights import (
    buffers_kept,
    current,
    is_computed,
    is_pruned,
    one_step,
)
from dualprop.registry import Registry


class Weighted(AffineMap):
    """A synapse with one tensor of weights, and perhaps feedback weights of its own.

    With `feedback="kolen-pollack"` the feedback is B^T delta with weights B, drawn independently of W. B receives
    the same gradient as W, so that with the same weight decay B - W decays geometrically [Kolen, Pollack 1994].
    With "random" B stays as it is; with "sign" there is none, and the feedback goes through the signs of W.

    Attributes:
        weight: W.
        bias: b, zero at first; or None.
        feedback: B, of the shape of W; or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    feedback: nn.Parameter | None

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        bias: bool,
        feedback: str,
        init: str,
        pool: Pool | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__(pool)
        self._shape, self._init = shape, INITS[init]
        self.weight = nn.Parameter(self.draw(generator))
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape[0])) if bias else None)
        self.register_parameter("feedback", None)
        FEEDBACK[feedback](self, generator)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """New random weights of the shape of W, as W and B are at first."""
        return self._init(torch.empty(self._shape), generator)

    @property
    def self_adjoint(self) -> bool:
        """Whether W is Wᵀ, to rounding, and the feedback goes through it."""
        if self.pool is not None or self.feedback_kind != "symmetric":
            return False
        W, turned = self.weight.detach(), self.turned_weight()
        return W.shape == turned.shape and torch.allclose(W, turned, rtol=0, atol=1e-6 * float(W.abs().max()))

    @abstractmethod
    def turned_weight(self) -> Tensor:
        """The weights of the transposed map, as those of a map like this one where that has such."""

    def redrawn(self, generator: torch.Generator) -> Weighted:
        """A synapse like this one with weights drawn anew in place of W, pooling in front, and neither b nor B."""
        kind: type[Weighted] = type_before_parametrizations(self)
        other = kind.__new__(kind)
        vars(other).update(vars(self))  # shape, pool and geometry, then the registers of a new module
        nn.Module.__init__(other)
        other.feedback_kind = "symmetric"
        with buffers_kept(self):
            drawn = nn.Parameter(torch.empty_like(self.read("weight")).copy_(self.draw(generator)))
        for name, own in {"weight": drawn, "bias": None, "feedback": None}.items():
            vars(other).pop(name, None)  # where a hook puts what it computes
            other.register_parameter(name, own)
        return other

    def shifting(self, delta: Tensor) -> Callable[[Tensor, Tensor | None], object] | None:
        """None where weights have hooks, are computed or of another type, or where B follows W."""
        if not self._simple(delta.dtype) or self.feedback is not None or not self.weight.requires_grad:
            return None
        bias = self.bias if self.bias is not None and self.bias.requires_grad else None

        def shift(z: Tensor, operand: Tensor | None) -> None:
            self.shift(delta, self._pooled(z) if operand is None else operand)
            if bias is not None:
                bias.add_(products.total(delta))

        return shift

    def shift(self, delta: Tensor, p: Tensor) -> None:
        """W += Σ_batch delta p^T."""
        self.weight.add_(self.outer(delta, p))

    def _simple(self, dtype: torch.dtype) -> bool:
        """Whether its weights are parameters of that type without hooks."""
        own = [p for p in self._parameters.values() if p is not None]
        hooked = any(p._backward_hooks or p._post_accumulate_grad_hooks for p in own)
        return not (is_computed(self) or hooked or any(p.dtype != dtype for p in own))

    @override
    def copies(self, dtype: torch.dtype) -> LowCopies | None:
        own = {name: p.detach() for name, p in self._parameters.items() if p is not None}
        if not self._simple(self.weight.dtype) or self.weight.device.type != "cpu":
            return None
        low = {name: torch.empty_like(p, dtype=dtype) for name, p in own.items()}

        def renew() -> None:
            for name, copy in low.items():
                copy.copy_(own[name])

        return LowCopies(low, renew)

    def _bound(self, name: str, low: LowCopies | None) -> Any:
        """A weight as calls are bound to it; None if there is none."""
        p = self._parameters[name]
        return None if p is None else p.detach() if low is None else low.weights[name]

    @override
    def bound_to(self) -> tuple[object, ...]:
        return tuple(
            [
                (
                    id(p),
                    p.data_ptr(),
                    p.shape,
                    p.is_contiguous(),
                    p.dtype,
                    p.requires_grad,
                    bool(p._backward_hooks or p._post_accumulate_grad_hooks),
                )
                for p in self._parameters.values()
                if p is not None
            ]
        )

    @property
    @abstractmethod
    def width_below(self) -> int:
        """How many neurons or channels the affine map reads."""

    @property
    def biased(self) -> bool:
        """Whether there is a b."""
        return self._parameters.get("bias", self) is not None

    @property
    def fan_in(self) -> int:
        """How many numbers of W make one of W p."""
        return math.prod(self._shape[1:])

    def read(self, name: str) -> Any:
        """A weight by its name, None if there is none; computed once in a step."""
        parameters = self._parameters
        if name in parameters:
            return parameters[name]
        step = current()
        return getattr(self, name) if step is None else step.of(self, name)

    def heard(self, name: str) -> Any:
        """A weight as products read it: as it is, but on devices."""
        weight = self.read(name)
        at = crossing.here() if crossing.OPEN else None
        return weight if at is None or weight is None else at.weight(self, name, weight)

    def upward(self, dtype: torch.dtype) -> Tensor:
        """W in a type; converted once in a step."""
        return self._in_type("weight", dtype)

    def downward(self, dtype: torch.dtype) -> Tensor:
        """The weights that the feedback goes through, B, W or its signs, in a type; converted once in a step."""
        down = self._in_type("weight" if self._leader is None else "feedback", dtype, down=True)
        return signs(down) if self.feedback_kind == "sign" else down

    def _in_type(self, name: str, dtype: torch.dtype, *, down: bool = False) -> Tensor:
        parameters = self._parameters
        weight: Tensor = parameters[name] if name in parameters else self.read(name)  # type: ignore[assignment]
        at = crossing.here() if crossing.OPEN else None
        if at is not None:
            return at.weight(self, name, weight, down=down).to(dtype)
        if weight.dtype is dtype:
            return weight
        step = current()
        return weight.to(dtype) if step is None else step.in_type(self, name, dtype)

    @property
    def _leader(self) -> Tensor | None:
        """The parameter whose gradient B gets, so that they decay towards each other; None without a B.

        Raises:
            DualpropError: where W is made of others and moves by no gradient of its own.
        """
        if self._parameters.get("feedback", self) is None:
            return None
        for name in ("weight", *(["weight_orig"] if is_pruned(self, "weight") else [])):
            if name in self._parameters:
                return self._parameters[name]
        raise DualpropError(
            f"net: the weight of a {type_before_parametrizations(self).__name__} is computed from others, which "
            "feedback weights B do not follow; use feedback='symmetric', or take the parametrization away"
        )

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """W with B, if there is a B."""
        feedback = self.read("feedback")
        return [] if feedback is None else [(self.read("weight"), feedback)]

    @override
    def followers(self) -> list[tuple[Tensor, Tensor]]:
        leader = self._leader
        if leader is None:
            return []
        feedback = self.read("feedback")
        return [(leader, feedback)] if feedback.requires_grad else []

    @override
    def learnt(self) -> list[Tensor]:
        weights, bias = self.learnt_weight(), self.read("bias")
        return weights if bias is None or not bias.requires_grad else [*weights, bias]

    def learnt_weight(self) -> list[Tensor]:
        """W, if it learns; or the frozen parameter that B follows."""
        weight = self.read("weight")
        return [weight] if weight.requires_grad else [leader for leader, _ in self.followers()]

    @abstractmethod
    def modules_without_weights(self) -> list[nn.Module]:
        """Modules that make W p + b one after the other; the last has the names of W and b and nothing in them."""

    def plain(self) -> list[nn.Module]:
        """Pooling and PyTorch's own module with the very W and b; itself where W or b is computed from others."""
        if is_computed(self):
            return super().plain()
        *before, module = self.modules_without_weights()
        for name in ("weight", "bias"):
            setattr(module, name, getattr(self, name))
        return self._behind_pool(*before, module)

    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """Σ_batch delta p^T to W and B, Σ_batch delta to b."""
        self._learn(delta, p, bias=True)

    def learn_weights(self, delta: Tensor, p: Tensor) -> None:
        """Σ_batch delta p^T to W and B alone."""
        self._learn(delta, p, bias=False)

    def _learn(self, delta: Tensor, p: Tensor, *, bias: bool) -> None:
        step = current()
        if step is None or self not in step:
            with one_step((self,)):
                return self._learn(delta, p, bias=bias)
        b = self.read("bias") if bias else None
        if b is not None and b.requires_grad:
            step.add(b, products.total(delta))
        step.release(self)
        for weight in self.learnt_weight():
            step.add(weight, self.outer(delta, p))
        return None

    def extras(self) -> str:
        """What `print(net)` says of every weighted synapse."""
        own = "" if self.feedback_kind == "symmetric" else f", feedback={self.feedback_kind}"
        pool = "" if self.pool is None else f", pool={self.pool}"
        return f", bias={self.biased}{own}{pool}"

    @abstractmethod
    def outer(self, delta: Tensor, p: Tensor) -> Tensor:
        """Σ_batch delta p^T, of the shape of W."""

    @abstractmethod
    def linear_part(self, p: Tensor) -> Tensor:
        """W p, without the bias; shape (B, *out_shape)."""


def _symmetric(synapse: Weighted, generator: torch.Generator | None) -> None:
    """No weights of its own: the feedback goes through W^T."""


def _kolen_pollack(synapse: Weighted, generator: torch.Generator | None) -> None:
    """Weights B of the shape of W, drawn independently of it, which get its gradient."""
    synapse.feedback = nn.Parameter(synapse.draw(generator).to(synapse.weight))
    synapse.feedback_kind = "kolen-pollack"


def _random(synapse: Weighted, generator: torch.Generator | None) -> None:
    """Such weights that stay as they are (Lillicrap et al., Nature Communications 2016)."""
    _kolen_pollack(synapse, generator)
    assert synapse.feedback is not None
    synapse.feedback.requires_grad_(False)
    synapse.feedback_kind = "random"


def _sign(synapse: Weighted, generator: torch.Generator | None) -> None:
    """No weights of its own: the feedback goes through the signs of W."""
    synapse.feedback_kind = "sign"


def signs(W: Tensor) -> Tensor:
    """The sign of every weight times their mean absolute value (Liao, Leibo, Poggio, AAAI 2016)."""
    return W.sign() * W.abs().mean()


FEEDBACK = Registry(
    "feedback", {"symmetric": _symmetric, "kolen-pollack": _kolen_pollack, "random": _random, "sign": _sign}
)

Feedback = Annotated[str, In(FEEDBACK)]
"""How the error comes down, by name."""
