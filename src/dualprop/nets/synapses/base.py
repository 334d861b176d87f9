"""What every synapse is: pooling in front, an affine map, its adjoint and its Hebbian gradient."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import override

from dualprop.arguments import In, checked
from dualprop.errors import DualpropError
from dualprop.nets.kernels import products
from dualprop.nets.synapses.inits import INITS
from dualprop.nets.synapses.pools import Linearisation, Pool
from dualprop.registry import Registry


def accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add `gradient` to `parameter.grad` and call the parameter's hooks for that, as autograd does for a leaf.

    So `parameter.register_post_accumulate_grad_hook` can update and free a parameter's gradient as soon as it is
    there, before those of the layers below are computed.
    """
    gradient = gradient.to(parameter.dtype)
    if gradient.stride() != parameter.stride():  # fused optimizers read both as they lie in memory
        gradient = torch.empty_like(parameter).copy_(gradient)
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)
    for hook in list((parameter._post_accumulate_grad_hooks or {}).values()):
        hook(parameter)


@contextmanager
def frozen_weights(synapses: Iterable[Synapse]) -> Iterator[None]:
    """An inference, in which weights do not change and synapses may keep copies of them in another type."""
    held = list(synapses)
    torch.clear_autocast_cache()  # an optimizer may have changed the weights inside one autocast context
    for synapse in held:
        synapse.hold()
    try:
        yield
    finally:
        for synapse in held:
            synapse.release()
        torch.clear_autocast_cache()  # the weights' low-precision copies have served


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
        eager: whether to see a state is to compute its drive.
        aliases: whether its drive and its feedback may be the very tensors that it was given.
    """

    behind: Pool | None = None
    eager = False
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

    def hold(self) -> None:
        """An inference begins: the weights stand still, and copies of them in another type may be kept."""

    def release(self) -> None:
        """It has ended, or reads these weights no more: the copies go."""

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

    def plain(self) -> list[nn.Module]:
        """Modules that make A(z) one after the other, on this synapse's own parameters.

        PyTorch's own, where it has them; the synapse itself where it has none.
        """
        return [self]

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The weights W that have feedback weights B of their own, each with its B."""
        return []


class AffineMap(Synapse):
    """A(z) = W p + b with p the pooled state z, or z itself.

    A new one implements `affine`, `transposed`, `hebbian` and `affine_shape`, which know nothing of the pool, and
    reports the products that it makes (`dualprop.nets.counting`).

    Args:
        pool: the pooling in front, linearised where the state is; none by default.

    Attributes:
        kept: during an inference, in which weights stand still, what the synapse wants to keep of them, by name.
    """

    kept: dict[str, Tensor] | None

    @checked
    def __init__(self, pool: Pool | None = None) -> None:
        super().__init__()
        self.kept = None
        self.pool = pool

    @override
    @property
    def core(self) -> AffineMap:
        return self

    @override
    def hold(self) -> None:
        self.kept = {}

    @override
    def release(self) -> None:
        self.kept = None

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

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """As `Synapse.linearise`: p."""
        return (z, Linearisation.of(z, z)) if self.pool is None else self.pool.linearise(z)

    @override
    def adjoint_at(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        delta = self.transposed(delta, linearised.operand).contiguous(memory_format=linearised.layout)
        return delta if self.pool is None else self.pool.adjoint(delta, linearised)

    @override
    def add_grad(self, delta: Tensor, z: Tensor) -> None:
        self.hebbian(delta, self._pooled(z))

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

    def redrawn(self, generator: torch.Generator) -> Weighted:
        """This synapse with weights drawn anew in place of W, pooling in front, and neither b nor B."""
        other = copy.deepcopy(self)
        other.bias = other.feedback = None
        other.weight = nn.Parameter(torch.empty_like(self.weight).copy_(self.draw(generator)))
        return other

    @property
    @abstractmethod
    def width_below(self) -> int:
        """How many neurons or channels the affine map reads."""

    def upward(self, dtype: torch.dtype) -> Tensor:
        """W in a type; converted once in an inference."""
        return self._in("weight", self.weight, dtype)

    def downward(self, dtype: torch.dtype) -> Tensor:
        """The weights that the feedback goes through, B or W, in a type; converted once in an inference."""
        own = self.feedback
        return self.upward(dtype) if own is None else self._in("feedback", own, dtype)

    def _in(self, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
        if weight.dtype == dtype or self.kept is None:
            return weight.to(dtype)
        if name not in self.kept:
            self.kept[name] = weight.to(dtype)
        return self.kept[name]

    def feedback_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """W with B, if there is a B."""
        return [] if self.feedback is None else [(self.weight, self.feedback)]

    @abstractmethod
    def modules_without_weights(self) -> list[nn.Module]:
        """Modules that make W p + b one after the other; the last has the names of W and b and nothing in them."""

    def plain(self) -> list[nn.Module]:
        """Pooling and PyTorch's own module with the very W and b; itself where W or b is computed from others."""
        if not all(isinstance(own, nn.Parameter | None) for own in (self.weight, self.bias)):
            return super().plain()
        *before, module = self.modules_without_weights()
        for name in ("weight", "bias"):
            setattr(module, name, getattr(self, name))
        return self._behind_pool(*before, module)

    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """Σ_batch delta p^T to W and B, Σ_batch delta to b."""
        if self.bias is not None and self.bias.requires_grad:
            accumulate(self.bias, products.total(delta))
        self.learn_weights(delta, p)

    def learn_weights(self, delta: Tensor, p: Tensor) -> None:
        """Σ_batch delta p^T to W and B alone."""
        hebbian = [w for w in (self.weight, self.feedback) if w is not None and w.requires_grad]
        if hebbian:
            gradient = self.outer(delta, p)
            for parameter in hebbian[1:]:
                accumulate(parameter, gradient.to(parameter.dtype, copy=True))  # clipping scales them in place
            accumulate(hebbian[0], gradient)

    def extras(self) -> str:
        """What `print(net)` says of every weighted synapse."""
        own = "" if self.feedback is None else ", feedback=kolen-pollack"
        pool = "" if self.pool is None else f", pool={self.pool}"
        return f", bias={self.bias is not None}{own}{pool}"

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
