"""What a layer makes of its drive and of what comes down to it: the difference that its edges learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.engines.dyads.neurons import Neurons
from dualprop.engines.dyads.states import Nudge, dyad
from dualprop.nets.losses import Loss
from dualprop.nets.potentials import Potential
from dualprop.nets.wiring import Wiring


class Difference(ABC):
    """A layer's difference, and the strength β_k that it is divided by where edges learn.

    Args:
        loss: of the output layer.
        beta: β_1 .. β_L.
    """

    def __init__(self, loss: Loss, beta: Sequence[float]) -> None:
        self.loss, self.beta = loss, tuple(beta)

    @abstractmethod
    def hidden(self, n: Neurons) -> Tensor:
        """Of a hidden layer, of its drive `total` and its feedback `pull`."""

    @abstractmethod
    def output(self, n: Neurons, y: Tensor) -> Tensor:
        """Of the output layer, of its drive `total` and the encoded targets y."""


class Finite(Difference):
    """Dual propagation's: f(a + α r d) - f(a - ᾱ r d), both states a step away from the drive.

    Args:
        loss: of the output layer.
        nudge: how states are nudged.
    """

    def __init__(self, loss: Loss, nudge: Nudge) -> None:
        super().__init__(loss, nudge.beta)
        self._nudge, self._wiring = nudge, Wiring.chain(len(nudge.beta))

    @override
    def hidden(self, n: Neurons) -> Tensor:
        f, a, d = _read(n)
        up, down = self._nudge.steps(self._wiring, n.number)
        return dyad(f, a, d, up, down, self._nudge.share)[1]

    @override
    def output(self, n: Neurons, y: Tensor) -> Tensor:
        assert n.potential is not None
        assert n.total is not None
        plus, minus = self.loss.output_step(n.potential, n.total, y, *self._nudge.at(n.number))
        return plus - minus


class Derivative(Difference):
    """Back-propagation's: f'(a) d, and at the output -f'(a) ∇ℓ. The control to dual propagation.

    Args:
        loss: of the output layer.
        depth: L.
    """

    def __init__(self, loss: Loss, depth: int) -> None:
        super().__init__(loss, (1.0,) * depth)

    @override
    def hidden(self, n: Neurons) -> Tensor:
        return _derived(*_read(n))

    @override
    def output(self, n: Neurons, y: Tensor) -> Tensor:
        assert n.output is not None
        n.pull = self.loss.gradient(n.output, y).neg_()
        return _derived(*_read(n))


def _read(n: Neurons) -> tuple[Potential, Tensor, Tensor]:
    assert n.potential is not None
    assert n.total is not None
    assert n.pull is not None
    return n.potential, n.total, n.pull


def _derived(f: Potential, a: Tensor, d: Tensor) -> Tensor:
    """f'(a)^T d."""
    with torch.enable_grad():
        a = a.detach().requires_grad_()
        (made,) = torch.autograd.grad(f(a), a, d)
    return made
