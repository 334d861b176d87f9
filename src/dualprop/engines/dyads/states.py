"""Dyadic states: how a neuron's z^+ and z^- are nudged, updated and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dualprop.engines.states import State
from dualprop.nets.kernels.arena import room
from dualprop.nets.kernels.blockwise import blockwise, suits_blocks
from dualprop.nets.potentials import Potential
from dualprop.nets.wiring import Wiring

Lasting = Sequence[tuple[Tensor, Tensor | None]]
"""Mean and difference of layers k = 1..L, from which an inference can start; None for no difference."""


@dataclass(frozen=True)
class Nudge:
    """How the two states of a dyad are nudged and averaged.

    Args:
        alpha: α in [0, 1], the weight of the plus state; ᾱ = 1 - α is the minus state's.
        beta: β_1 .. β_L, the strength of every layer's nudge, positive.
        transpose: DP-transpose, z̄ = ᾱ z^+ + α z^- in place of α z^+ + ᾱ z^- [Høier, Zach, ICML 2024].
    """

    alpha: float
    beta: tuple[float, ...]
    transpose: bool = False

    def mean(self, plus: Tensor, minus: Tensor) -> Tensor:
        """z̄, which carries the activity forward."""
        return torch.lerp(minus, plus, self.share)

    @property
    def share(self) -> float:
        """That of the plus state in the mean."""
        return 1 - self.alpha if self.transpose else self.alpha

    def weight(self, wiring: Wiring, source: int, target: int) -> float:
        """That of an edge's feedback beside the others out of its source, β of the first's target by its own's."""
        if source < 1:
            return 1.0
        first = wiring.edges[wiring.out_of[source][0]][1]
        return self.beta[first - 1] / self.beta[target - 1]

    def steps(self, wiring: Wiring, k: int) -> tuple[float, float]:
        """α r_k and ᾱ r_k, the steps of a layer's states along its feedback; r_k = β_k/β_m, m its first target."""
        out = wiring.out_of[k]
        ratio = self.beta[k - 1] / self.beta[wiring.edges[out[0]][1] - 1] if out else 1.0
        return self.alpha * ratio, (1 - self.alpha) * ratio

    def at(self, k: int) -> tuple[float, float]:
        """αβ_k and ᾱβ_k, by which an output layer is nudged towards the target and away from it."""
        return self.alpha * self.beta[k - 1], (1 - self.alpha) * self.beta[k - 1]


_EXACT = (torch.float32, torch.float64)
"""The types in which the difference of two states is taken as they are."""


def both(f: Potential, a: Tensor, d: Tensor, up: float, down: float) -> tuple[Tensor, Tensor]:
    """The block update of a layer that no loss nudges: z^+ = f(a + up d) and z^- = f(a - down d).

    Args:
        f: the layer's potential.
        a: its drive, shape (B, ...).
        d: its feedback, of the same shape.
        up: α r_k.
        down: ᾱ r_k.
    """
    plus, minus = torch.add(a, d, alpha=up, out=room(a)), torch.sub(a, d, alpha=down, out=room(a))
    return f.over(plus), f.minus.over(minus)


def is_exact(f: Potential, a: Tensor, up: float, down: float, share: float) -> bool:
    """Whether a potential's `dyad` may compute in the type of a; arguments as there."""
    return a.dtype in _EXACT or f.stable(up, down, share)


def dyad(
    f: Potential, a: Tensor, d: Tensor, up: float, down: float, share: float, spend: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and difference of a hidden layer's two states, all that learning needs of them.

    z^+ = f(a + up d), z^- = f(a - down d). In low precision the difference of two nearby states would be lost in
    their rounding: unless the potential knows better, both states are computed in float32, and only mean and
    difference are rounded.

    Args:
        f: the layer's potential.
        a: its feed-forward drive, shape (B, ...).
        d: its feedback, of the same shape.
        up: α r_k.
        down: ᾱ r_k.
        share: that of z^+ in the mean.
        spend: whether a and d may be written over.

    Returns:
        z̄ and z^+ - z^-, in the type of a.
    """
    exact = is_exact(f, a, up, down, share)
    if exact and not (spend and f.elementwise and suits_blocks(a)):
        d = d if d.dtype is a.dtype else d.to(a.dtype)
        return f.dyad(a, d, up, down, share, (a, d) if spend else None)

    def both(a: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        return f.dyad(a, d, up, down, share, (a, d))

    if f.elementwise:
        dtype = a.dtype if exact else None
        mean, difference = blockwise(both, a, d, outputs=2, out=(a, d) if spend else None, dtype=dtype)
        return mean, difference
    mean, difference = both(a.float(), d.float())
    return mean.to(a.dtype), difference.to(a.dtype)


@dataclass(frozen=True, repr=False)
class DyadicState(State):
    """The states z^+ and z^- of dyadic neurons, whose difference is proportional to the error.

    Args:
        plus: z_k^+ for k = 0..L, each of shape (B, ...).
        minus: z_k^-, of the same shapes; where nothing has nudged layer k yet, the very tensor of plus[k].
        nudge: how they were nudged, with its alpha and beta; the share of z^+ in the mean follows from it.
    """

    share: float = field(init=False)
    nudge: Nudge

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", self.nudge.share)
