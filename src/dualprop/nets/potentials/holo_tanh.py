"""A smooth and holomorphic clip(z/2, 0, 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.potentials.base import Potential
from dualprop.nets.potentials.complex import bounded, exponential


@dataclass(frozen=True)
class HoloTanh(Potential):
    """f(a) = ½a S(a) + (1 - ½a) S(a - 2) with S(a) = 1 / (1 + e^-a), near clip(a/2, 0, 1) and holomorphic.

    It falls a little below 0 and rises a little above 1, so that it is no gradient of a convex function: G and G*
    are not known.

    References:
        Laborieux, Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
        Oscillations*, NeurIPS 2022 (their a = 1).
    """

    elementwise = True
    holomorphic = True
    convex = False

    def __call__(self, a: Tensor) -> Tensor:
        """½a S(a) + (1 - ½a) S(a - 2), as S(a - 2) + ½a (S(a) - S(a - 2)), which does not cancel."""
        a = bounded(a)
        powers = exponential(-a)
        low, high = (1 + powers).reciprocal(), (1 + math.exp(2) * powers).reciprocal()
        return high + 0.5 * a * (low - high)

    def energy(self, z: Tensor) -> Tensor:
        """Not known.

        Raises:
            DualpropError: always.
        """
        raise DualpropError("activation='holo-tanh': its G is not known, so that its states have no energy")

    def conjugate(self, a: Tensor) -> Tensor:
        """Not known.

        Raises:
            DualpropError: always.
        """
        raise DualpropError("activation='holo-tanh': its G* is not known")
