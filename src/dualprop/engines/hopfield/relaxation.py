"""Relaxation of a layered Hopfield net: each layer settles between the one below and the one above.

z_k <- f_k(A_k(z_{k-1}) + γ A_{k+1}^T z_{k+1}) is the layer's minimiser of the energy
E(z) = Σ_k G_k(z_k) - z_k·A_k(z_{k-1}), with γ = 1. Several copies of the batch, differently nudged, relax in the
same products. A step costs two products per synapse, but for the first: the input stands still.

References:
    Scellier, Bengio, *Equilibrium Propagation*, Frontiers in Computational Neuroscience 2017.
    Xie, Seung, *Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network*, 2003 (γ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.errors import DivergenceError
from dualprop.nets.net import Layer
from dualprop.nets.synapses import product_dtype
from dualprop.registry import Registry

Order = Callable[[int], list[list[int]]]
"""From the number of layers to the groups of a step: the layers of a group are updated from the same values."""

ORDERS: Registry[Order] = Registry(
    "order",
    {
        "synchronous": lambda depth: [list(range(1, depth + 1))],
        "even-odd": lambda depth: [group for group in (list(range(s, depth + 1, 2)) for s in (1, 2)) if group],
        "forward": lambda depth: [[k] for k in range(1, depth + 1)],
        "backward": lambda depth: [[k] for k in range(depth, 0, -1)],
    },
)
"""In every order a step updates each layer once. In all but the synchronous one the energy never rises."""


class Settled(NamedTuple):
    """How a phase ended.

    Attributes:
        steps: that it took.
        residual: the most that a neuron's state moved in the last of them.
    """

    steps: int
    residual: float


class Relaxation:
    """The states of layers 1..M while they relax.

    Args:
        layers: those whose states relax.
        drive: A_1(x), of the shape of z_1, one row a sample and copy.
        states: z_1 .. z_M to start from, rows as those of `drive`. They are not written over.
        copies: what the rows are.
        groups: the order of updates, from `ORDERS`; layers in no group stand still.
        gain: γ, of the feedback.
        force: what the world adds to the drive of layer M, a function of z_M; None for nothing.
        noise: fills a new tensor of the shape of a drive with what is added to it; None for nothing.

    Attributes:
        z: the states as they are now; z[k - 1] is layer k's.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        drive: Tensor | None,
        states: Sequence[Tensor],
        copies: Copies,
        *,
        groups: Sequence[Sequence[int]],
        gain: float = 1.0,
        force: Callable[[Tensor], Tensor] | None = None,
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.layers, self.copies, self.groups = layers, copies, groups
        self.gain, self.force, self.noise = gain, force, noise
        self.depth = len(layers)
        self.z = list(states)
        self._first = drive
        self._synapses = [copies.on(layer.synapse) for layer in layers]
        self._linearisation: list[tuple[Tensor, Any] | None] = [None] * self.depth  # of z_k, by the synapse above

    def run(self, steps: int, tolerance: float, phase: str) -> Settled:
        """Relax for some steps, or until no state moves by more than the tolerance in a step.

        Args:
            steps: how many at most, at least 1.
            tolerance: 0 for all `steps` steps, unless nothing moves any more.
            phase: its name, for errors.

        Returns:
            How many steps it took and the residual of the last.

        Raises:
            DivergenceError: if a state becomes NaN or infinite, or the residual grows: in the last step some
                layer's states, all samples together, move by more than a tenth of their norm and ten times as far
                as half way, where they moved three times as far as after a quarter. That needs a phase long enough
                for news to have crossed the net up and down by half way. A complex state that passes a pole of its
                activation leaps once, which is no divergence.
        """
        start, looks = list(self.z), {max(1, steps // 4), max(1, steps // 2), steps}
        changes: list[list[float]] = []  # of every layer, at each look
        for step in range(1, steps + 1):
            watched = tolerance > 0 or step in looks
            before = list(self.z) if watched else []
            self.step()
            if not watched:
                continue
            moved = [z - old for z, old in zip(self.z, before, strict=True)]
            largest = [_largest(change) for change in moved]
            if not all(map(math.isfinite, largest)):
                raise self._diverged(start, step, phase)
            if step in looks:
                changes.append([_norm(change) for change in moved])
            if step == steps and steps // 2 >= 2 * self.depth:
                self._check_growth(changes, steps, phase)
            residual = max(largest, default=0.0)
            if residual <= tolerance:
                break
        return Settled(step, residual)

    def step(self) -> None:
        """Update every layer once."""
        for group in self.groups:
            for k, z in [(k, self._updated(k)) for k in group]:
                self.z[k - 1], self._linearisation[k - 1] = z, None

    def _updated(self, k: int) -> Tensor:
        """The new state of layer k."""
        a, d = self._drive(k), self._pull(k)
        gain, precise = self.gain if k < self.depth else 1.0, self.z[k - 1].dtype
        if d is None:
            # the input's drive serves again, and one behind a pool is what the synapse has read
            a = a.clone() if k == 1 or self.layers[k - 1].synapse.behind is not None else a
        elif a.dtype == d.dtype == precise:
            a = torch.add(a, d, alpha=gain, out=d)
        else:  # feedback is small beside the drive: their sum must not be rounded as the products are
            a = torch.add(a.to(precise), d, alpha=gain)
        a = a.to(precise)
        if self.noise is not None:
            a.add_(self.noise(a))
        return self.copies.activate(self.layers[k - 1].potential, a)

    def _drive(self, k: int) -> Tensor:
        """A_k(z_{k-1})."""
        if k == 1:
            assert self._first is not None, "there is a layer, so there is its drive"
            return self._first
        return self._synapses[k - 1].drive(self._look(k - 1)[0])

    def _pull(self, k: int) -> Tensor | None:
        """A_{k+1}^T z_{k+1}, or what the world does to layer M."""
        if k == self.depth:
            return None if self.force is None else self.force(self.z[-1])
        above = self.z[k]
        return self._synapses[k].down(above.to(product_dtype(above)), self._look(k)[1])

    def _look(self, k: int) -> tuple[Tensor, Any]:
        """What the synapse above layer k sees of it."""
        linearised = self._linearisation[k - 1]
        if linearised is None:
            z = self.z[k - 1]
            linearised = self._linearisation[k - 1] = self._synapses[k].linearise(z.to(product_dtype(z)))
        return linearised

    def _check_growth(self, changes: Sequence[Sequence[float]], step: int, phase: str) -> None:
        for k, (early, half, now, z) in enumerate(zip(*changes, self.z, strict=True), 1):
            if half > 3 * early and now > 10 * half and now > 0.1 * _norm(z):
                raise DivergenceError(
                    f"the {phase} phase diverged by step {step}, layer {k}: "
                    f"its residual grew from {half:.3g} half way to {now:.3g}"
                )

    def _diverged(self, start: Sequence[Tensor], step: int, phase: str) -> DivergenceError:
        """Relax once more from the start, looking at every step."""
        again = Relaxation(
            self.layers,
            self._first,
            start,
            self.copies,
            groups=self.groups,
            gain=self.gain,
            force=self.force,
            noise=self.noise,
        )
        for number in range(1, step + 1):
            again.step()
            for k, z in enumerate(again.z, 1):
                if not bool(torch.isfinite(z).all()):
                    return DivergenceError(
                        f"the {phase} phase diverged at step {number}, layer {k}: a state became NaN or infinite"
                    )
        return DivergenceError(f"the {phase} phase diverged by step {step}: a state became NaN or infinite")


def _norm(z: Tensor) -> float:
    return float(torch.linalg.vector_norm(z, dtype=torch.float64))  # float32 squares overflow at 2e19


def _largest(z: Tensor) -> float:
    """max |z|, NaN if there is one."""
    low, high = torch.aminmax(z)  # a fraction of the time that a norm takes
    return abs(float(torch.maximum(-low, high)))


def energy(layers: Sequence[Layer], states: Sequence[Tensor]) -> Tensor:
    """E(z) = Σ_k G_k(z_k) - z_k·A_k(z_{k-1}) per sample.

    Args:
        layers: layers 1..M.
        states: z_0 .. z_M, each of shape (B, ...).

    Returns:
        The energies, shape (B,); infinite where a state is outside its potential's domain.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([2, 3, 1], "hard-sigmoid")
        >>> energy(net.chain, [torch.ones(4, n) for n in (2, 3, 1)]).shape
        torch.Size([4])
    """
    total = states[0].new_zeros(len(states[0]))
    for layer, below, z in zip(layers, states, states[1:], strict=False):
        total = total + layer.potential.energy(z) - (z * layer.synapse(below)).flatten(1).sum(1)
    return total
