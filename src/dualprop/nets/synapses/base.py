"""What every synapse is: pooling in front, an affine map, its adjoint and its Hebbian gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from dualprop.arguments import checked
from dualprop.errors import DualpropError
from dualprop.nets.synapses.pools import Linearisation, Pool, layout

Call = Callable[[], object]


class LowCopies(NamedTuple):
    """A synapse's weights in another type.

    Attributes:
        weights: by name.
        renew: what copies them anew.
    """

    weights: Mapping[str, Tensor]
    renew: Call


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
        feedback_kind: what the feedback goes through, a name in `FEEDBACK`.
        aliases: whether its drive and its feedback may be the very tensors that it was given.
        lasting: whether a linearisation serves on once the weights have moved.
    """

    behind: Pool | None = None
    feedback_kind = "symmetric"
    aliases = False
    lasting = True

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

    def copies(self, dtype: torch.dtype) -> LowCopies | None:
        """Its weights in a type in which `driving`, `sending` and `learning` can be bound to them, if they can."""
        return None

    def driving(self, z: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        """A call that writes A(z) into `out`, whatever z holds then; None if nothing is quicker than `affine`.

        Such a call and those of `sending`, `moving` and `learning` serve as long as `bound_to` is the same. A
        synapse has the first three for the same z, or none.

        Args:
            z: shape (B, *in_shape), contiguous.
            out: shape (B, *out_shape), contiguous.
            low: the weights in the type of z, where theirs is another.
        """
        return None

    def sending(self, delta: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        """A call that writes A^T delta into `out`; see `driving`.

        Args:
            delta: shape (B, *out_shape), contiguous.
            out: shape (B, *in_shape), contiguous.
            low: as for `driving`.
        """
        return None

    def moving(self, delta: Tensor, z: Tensor) -> Callable[[float], object] | None:
        """A call that moves the weights by a rate times the gradient of `add_grad`; see `driving`.

        Args:
            delta: shape (B, *out_shape), contiguous.
            z: shape (B, *in_shape), contiguous.
        """
        return None

    def learning(self, delta: Tensor, z: Tensor) -> Call | None:
        """A call that does what `add_grad` does; see `driving`. None where weights do not learn, too.

        Args:
            delta: shape (B, *out_shape), contiguous.
            z: shape (B, *in_shape), contiguous.
        """
        return None

    def bound_to(self) -> tuple[object, ...]:
        """What the weights are that such calls read: which, where, and whether they learn."""
        return ()

    def shifting(self, delta: Tensor) -> Callable[[Tensor, Tensor | None], object] | None:
        """A call that moves the weights at once by the gradient of `add_grad`; None if it has to go by `.grad`.

        The call takes z, and what its linearisation has read of it, where that is known.

        Args:
            delta: shape (B, *out_shape), whatever it holds then.
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
