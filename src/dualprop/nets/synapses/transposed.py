"""The other direction of an edge, through the same weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.arguments import Number, check
from dualprop.errors import DualpropError
from dualprop.nets.synapses.base import AffineMap, Synapse
from dualprop.nets.synapses.weighted import Weighted


class _Edge(Protocol):
    @property
    def synapse(self) -> Synapse:
        """The synapse on it."""


class Transposed(AffineMap):
    """A(z) = s Wᵀ z, with the weights W of another edge, which learns from both; no bias of its own.

    With s = 1 the two edges are a symmetric pair, as in a Hopfield net, with s = -1 a skew-symmetric one.

    Args:
        edge: the edge, as `Graph.edge` gives it, or its synapse, `Dense` or `Conv2d`: without a pool, and without
            feedback weights of its own.
        scale: s.

    Raises:
        DualpropError: for another synapse.

    Example:
        >>> import torch, dualprop as dp
        >>> dense = dp.Dense(3, 2)
        >>> back = Transposed(dense)
        >>> torch.equal(back(torch.ones(4, 2)), torch.ones(4, 2) @ dense.weight)
        True
    """

    def __init__(self, edge: _Edge | Synapse, *, scale: float = 1.0) -> None:
        super().__init__()
        synapse = edge if isinstance(edge, Synapse) else getattr(edge, "synapse", edge)
        check("scale", scale, Number)
        check("edge", synapse, Weighted)
        assert isinstance(synapse, Weighted)
        if synapse.pool is not None:
            raise DualpropError("edge: has a pool in front, and only a synapse without one has a transpose")
        if synapse.feedback_kind != "symmetric":
            raise DualpropError("edge: has feedback weights of its own, so that no transpose goes with it")
        self._tied = (synapse,)  # in a tuple, for the weights are registered where they belong
        self.scale = scale
        self._targets: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def tied(self) -> Weighted:
        """The synapse of the other direction."""
        return self._tied[0]

    @override
    @property
    def parts(self) -> tuple[Synapse, ...]:
        return (self, self.tied)

    @override
    def learnt(self) -> list[Tensor]:
        return self.tied.learnt_weight()

    def affine(self, p: Tensor) -> Tensor:
        """s Wᵀ p, of the shape of the state that W reads."""
        drive = self.tied.transposed(p, torch.Size((len(p), *self.affine_shape(tuple(p.shape[1:])))))
        return drive if self.scale == 1 else drive * self.scale

    def transposed(self, delta: Tensor, shape: torch.Size) -> Tensor:
        """s W δ."""
        feedback = self.tied.linear_part(delta).view(shape)
        return feedback if self.scale == 1 else feedback * self.scale

    def hebbian(self, delta: Tensor, p: Tensor) -> None:
        """s Σ_batch p δᵀ to W, which reads δ here and makes p."""
        self.tied.learn_weights(p if self.scale == 1 else p * self.scale, delta)

    def affine_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the state which W reads, known once a net has it; of a dense W at once."""
        if shape not in self._targets:
            features = getattr(self.tied, "in_features", None)
            if features is None:
                raise DualpropError(f"edge: the transpose does not know what shape to make of {shape}")
            return (features,)
        return self._targets[shape]

    def check_joins(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Refuse two layers that W does not join in the other direction; see `Synapse.check_joins`."""
        self.tied.check_joins(target, source)
        self._targets[source] = target

    def extra_repr(self) -> str:
        """What `print(net)` says of it."""
        return f"{type(self.tied).__name__}({self.tied.extra_repr()}), scale={self.scale:g}"
