"""What every synapse is: pooling in front, an affine map, its adjoint and its Hebbian gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from typing_extensions import override

from dualprop.arguments import In, checked
from dualprop.errors import DualpropError
from dualprop.nets.kernels import products
from dualprop.nets.synapses.inits import INITS
from dualprop.nets.synapses.pools import Linearisation, Pool, layout
from dualprop.nets.synapses.weights import (
    buffers_kept,
    current,
    is_computed,
    is_pruned,
    one_step,
)
from dualprop.registry import Registry

Call = Callable[[], object]


def product_dtype(x: Tensor) -> torch.dtype:
    """The type that products with states of the type of x are made in: autocast's, if it is on."""
    kind = x.device.type
    casts = torch.is_autocast_enabled(kind) and x.dtype != torch.float64  # autocast leaves float64 alone
    return torch.get_autocast_dtype(kind) if casts else x.dtype


class Synapse(nn.Module, ABC):
    """An affine map A between the states of two neighbouring layers, as the engines ask for it.

    Shapes: z is (B, *in_shape), A(z) is (B, *out_shape(in_shape)). Most are an `AffineMap`; a `Pooled` has a pool
    behind one.

    Attributes:
        behind: the pooling behind the map, if there is any.
        aliases: whether its drive and its feedback may be the very tensors that it was given.
    """

    behind: Pool | None = None
    aliases = False

    @property
    @abstractmethod
    def core(self) -> AffineMap:
        """The synapse without the pooling behind it."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The drive A(z), shape (B, *out_shape), differentiable by autograd."""

    @abstractmethod
    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """What `affine` reads of the state z, and what `adjoint_at` needs to know of z."""

    @abstractmethod
    def affine(self, p: Tensor) -> Tensor:
        """The drive of the state that was read as p, shape (B, *out_shape)."""

    @abstractmethod
    def adjoint_at(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """The feedback to a state that was read, A^T delta linearised there, in that state's shape."""

    @abstractmethod
    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        """Add the gradient of Σ_batch <delta, A(z)> by every parameter that requires one to its `.grad`.

        Args:
            delta: shape (B, *out_shape).
            z: shape (B, *in_shape).
        """

    def driving(self, z: Tensor, out: Tensor) -> Call | None:
        """A call that writes A(z) into `out`, whatever z holds then; None if nothing is quicker than `affine`.

        Such a call and those of `sending` and `moving` serve as long as the weights are the same tensors. A
        synapse has all three for the same z, or none.

        Args:
            z: shape (B, *in_shape), contiguous.
            out: shape (B, *out_shape), contiguous.
        """
        return None

    def sending(self, delta: Tensor, out: Tensor) -> Call | None:
        """A call that writes A^T delta into `out`; see `driving`.

        Args:
            delta: shape (B, *out_shape), contiguous.
            out: shape (B, *in_shape), contiguous.
        """
        return None

    def moving(self, delta: Tensor, z: Tensor) -> Callable[[float], object] | None:
        """A call that moves the weights by a rate times the gradient of `add_grad`; see `driving`.

        Args:
            delta: shape (B, *out_shape), contiguous.
            z: shape (B, *in_shape), contiguous.
        """
        return None

    @abstractmethod
    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of A(z), given that of z.

        Raises:
            DualpropError: if this synapse does not take such a z.
        """

    def adjoint(self, delta: Tensor, z: Tensor) -> Tensor:
        """The feedback A^T delta, without the bias.

        Args:
            delta: what the layer above sends down, shape (B, *out_shape).
            z: the state below, shape (B, *in_shape): the point at which pooling is linearised.

        Returns:
            The feedback, of the shape of z.
        """
        return self.adjoint_at(delta, self.linearise(z)[1])

    @property
    def parts(self) -> tuple[Synapse, ...]:
        """The synapses whose weights it reads: itself, one inside of it, or one that it is tied to."""
        return (self,)

    def learnt(self) -> list[Tensor]:
        """The weights that `add_grad` adds a gradient to, once each."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def check_joins(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Refuse two layers that this synapse cannot join.

        Args:
            source: the shape of one sample of the state that it reads.
            target: that of the drive that it adds to.

        Raises:
            DualpropError: saying what it makes of the source.
        """
        made = self.out_shape(source)
        if made != target:
            raise DualpropError(f"makes {made} of {source}, but the layer is {target}")

    @property
    def linear(self) -> bool:
        """Whether the linearisation is the same at every state: no pools but linear ones."""
        return all(pool.linear for pool in (self.core.pool, self.behind) if pool is not None)

    @property
    def self_adjoint(self) -> bool:
        """Whether A, but for a bias, is known to be its own transpose, as the loop of an energy has to be."""
        return False

    def plain(self) -> list[nn.Module]:
        """Modules that make A(z) one after the other, on this synapse's own parameters.

        PyTorch's own, where it has them; the synapse itself where it has none.
        """
        return [self]

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The weights W that have feedback weights B of their own, each with its B."""
        return []

    def followers(self) -> list[tuple[Tensor, Tensor]]:
        """The parameters whose gradient feedback weights get too, each with these: W with B, by default."""
        return [(weight, feedback) for weight, feedback in self.feedback_pairs() if feedback.requires_grad]


class AffineMap(Synapse):
    """A(z) = W p + b with p the pooled state z, or z itself.

    A new one implements `affine`, `transposed`, `hebbian` and `affine_shape`, which know nothing of the pool, and
    reports the products that it makes (`dualprop.nets.counting`).

    Args:
        pool: the pooling in front, linearised where the state is; none by default.
    """

    @checked
    def __init__(self, pool: Pool | None = None) -> None:
        super().__init__()
        self.pool = pool

    @override
    @property
    def core(self) -> AffineMap:
        return self

    @abstractmethod
    def affine(self, p: Tensor) -> Tensor:
        """W p + b, differentiable by autograd where a graph is wanted; shape (B, *out_shape)."""

    @abstractmethod
    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """W^T delta, without the bias; or B^T delta for a synapse with feedback weights of its own.

        Args:
            delta: what the layer above sends down, shape (B, *out_shape).
            shape: that of p, batch first.
        """

    @abstractmethod
    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """Add the gradient of Σ_batch <delta, W p + b> by every parameter that requires one to its `.grad`.

        Args:
            delta: shape (B, *out_shape).
            p: what the affine map reads.
        """

    @abstractmethod
    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of W p + b, given that of p.

        Raises:
            DualpropError: if this synapse does not take such a p.
        """

    @override
    def forward(self, z: Tensor) -> Tensor:
        return self.affine(self._pooled(z))

    def _behind_pool(self, *modules: nn.Module) -> list[nn.Module]:
        """The pool in front, if there is any, and these modules."""
        return [*(() if self.pool is None else [self.pool.module()]), *modules]

    def _pooled(self, z: Tensor) -> Tensor:
        return z if self.pool is None else self.pool(z)

    @override
    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        return (z, Linearisation(z.shape, z.shape, layout(z))) if self.pool is None else self.pool.linearise(z)

    @override
    def adjoint_at(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        delta = self.transposed(delta, linearised.operand).contiguous(memory_format=linearised.layout)
        return delta if self.pool is None else self.pool.adjoint(delta, linearised)

    @override
    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        self.hebbian(delta, z if self.pool is None else self.pool(z))

    @override
    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.affine_shape(tuple(in_shape) if self.pool is None else self.pool.out_shape(tuple(in_shape)))


class Weighted(AffineMap):
    """A synapse with one tensor of weights, and perhaps feedback weights of its own.

    With `feedback="kolen-pollack"` the feedback is B^T delta with weights B, drawn independently of W. B receives
    the same gradient as W, so that with the same weight decay B - W decays geometrically [Kolen, Pollack 1994].

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
        if self.pool is not None or self.feedback is not None:
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
        with buffers_kept(self):
            drawn = nn.Parameter(torch.empty_like(self.read("weight")).copy_(self.draw(generator)))
        for name, own in {"weight": drawn, "bias": None, "feedback": None}.items():
            vars(other).pop(name, None)  # where a hook puts what it computes
            other.register_parameter(name, own)
        return other

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

    def upward(self, dtype: torch.dtype) -> Tensor:
        """W in a type; converted once in a step."""
        return self._in_type("weight", dtype)

    def downward(self, dtype: torch.dtype) -> Tensor:
        """The weights that the feedback goes through, B or W, in a type; converted once in a step."""
        return self._in_type("weight" if self._leader is None else "feedback", dtype)

    def _in_type(self, name: str, dtype: torch.dtype) -> Tensor:
        parameters = self._parameters
        weight: Tensor = parameters[name] if name in parameters else self.read(name)  # type: ignore[assignment]
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
        own = "" if self._parameters.get("feedback", self) is None else ", feedback=kolen-pollack"
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
    """Weights B of the shape of W, drawn independently of it."""
    synapse.feedback = nn.Parameter(synapse.draw(generator).to(synapse.weight))


FEEDBACK = Registry("feedback", {"symmetric": _symmetric, "kolen-pollack": _kolen_pollack})

Feedback = Annotated[str, In(FEEDBACK)]
"""How the error comes down, by name."""
