"""The edge of a skip connection."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from typing_extensions import override

from dualprop.nets.synapses.base import AffineMap, Call, LowCopies


class Identity(AffineMap):
    """A(z) = z, or the pooled z: nothing to learn.

    Args:
        pool: pooling in front.

    Example:
        >>> import torch
        >>> Identity()(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    aliases = True

    @property
    def self_adjoint(self) -> bool:
        """Without a pool."""
        return self.pool is None

    def affine(self, p: Tensor) -> Tensor:
        """The operand itself."""
        return p

    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """The difference itself."""
        return delta

    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """There is nothing to learn."""

    @override
    def copies(self, dtype: torch.dtype) -> LowCopies | None:
        return LowCopies({}, _nothing)

    @override
    def driving(self, z: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        return partial(out.copy_, z) if self.pool is None else None

    @override
    def sending(self, delta: Tensor, out: Tensor, low: LowCopies | None = None) -> Call | None:
        return partial(out.copy_, delta) if self.pool is None else None

    @override
    def moving(self, delta: Tensor, z: Tensor) -> Callable[[float], object] | None:
        return (lambda rate: None) if self.pool is None else None

    @override
    def learning(self, delta: Tensor, z: Tensor) -> Call | None:
        return _nothing if self.pool is None else None

    def plain(self) -> list[nn.Module]:
        """The pool, if there is any."""
        return self._behind_pool()

    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the state."""
        return shape


def _nothing() -> None:
    """There is nothing to copy and nothing to learn."""
