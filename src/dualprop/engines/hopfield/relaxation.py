"""Relaxation of a Hopfield net: each layer settles among all that it is joined to.

z_k <- f_k(Σ_{j→k} A_jk(z_j) + Σ_{k→m} γ A_km^T z_m) is the layer's minimiser of the energy (see `HopfieldNet`), in
a chain with γ = 1 of E(z) = Σ_k G_k(z_k) - z_k·A_k(z_{k-1}). Copies of the batch, differently nudged, relax
in the same products. A step costs two products per synapse, but for those that read an input, which stands still.

References:
    Scellier, Bengio, *Equilibrium Propagation*, Frontiers in Computational Neuroscience 2017.
    Xie, Seung, *Equivalence of Backpropagation and Contrastive Hebbian Learning in a Layered Network*, 2003 (γ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.errors import DivergenceError
from dualprop.nets.synapses import product_dtype
from dualprop.registry import Registry

Neighbours = Mapping[int, set[int]]
"""For each layer that settles, in their order, those that act on it and on which it acts."""

Order = Callable[[Neighbours], list[list[int]]]
"""From the layers to the groups of a step: the layers of a group are updated from the same values."""


def _apart(neighbours: Neighbours) -> list[list[int]]:
    """Groups without neighbours, each layer in the first that will do: layers 1, 3, 5.. and 2, 4.. of a chain."""
    groups: list[list[int]] = []
    for k, near in neighbours.items():
        group = next((group for group in groups if not near.intersection(group)), None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    return groups


ORDERS: Registry[Order] = Registry(
    "order",
    {
        "synchronous": lambda neighbours: [list(neighbours)],
        "even-odd": _apart,
        "forward": lambda neighbours: [[k] for k in neighbours],
        "backward": lambda neighbours: [[k] for k in reversed(list(neighbours))],
    },
)
"""In every order a step updates each layer once. In all but the synchronous one the energy never rises."""

Force = Callable[[int, Tensor], Tensor]
"""From an output's number and what it says to what its loss adds to its drive."""


class Settled(NamedTuple):
    """How a phase ended.

    Attributes:
        steps: that it took.
        residual: the most that a neuron's state moved in the last of them.
    """

    steps: int
    residual: float


class _Part(NamedTuple):
    """Of a layer's drive."""

    tensor: Tensor
    gain: float  # that multiplies it
    own: bool  # whether nobody else reads its memory


class Relaxation:
    """The states of the layers of a Hopfield net while they relax.

    Args:
        net: whose layers relax.
        drives: what its inputs drive, by layer, one row a sample and copy.
        states: the states to start from, by layer, rows as those of the drives. They are not written over.
        copies: what the rows are.
        groups: the order of updates, from `ORDERS`; layers in no group stand still.
        force: what the losses add to the drives of the outputs; None for nothing.
        noise: fills a new tensor of the shape of a drive with what is added to it; None for nothing.

    Attributes:
        z: the states as they are now, by layer.
    """

    def __init__(
        self,
        net: HopfieldNet,
        drives: Mapping[int, Tensor],
        states: Mapping[int, Tensor],
        copies: Copies,
        *,
        groups: Sequence[Sequence[int]],
        force: Force | None = None,
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.net, self.copies, self.groups = net, copies, groups
        self.force, self.noise = force, noise
        self.z = dict(states)
        self._drives = drives
        self._synapses = [copies.on(term.synapse) for term in net.terms]
        self._linearisations: dict[int, tuple[Tensor, Any]] = {}  # of the state that a term reads, by the term

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
        start, looks = dict(self.z), {max(1, steps // 4), max(1, steps // 2), steps}
        changes: list[list[float]] = []  # of every layer, at each look
        for step in range(1, steps + 1):
            watched = tolerance > 0 or step in looks
            before = dict(self.z) if watched else {}
            self.step()
            if not watched:
                continue
            moved = [z - before[k] for k, z in self.z.items()]
            largest = [_largest(change) for change in moved]
            if not all(map(math.isfinite, largest)):
                raise self._diverged(start, step, phase)
            if step in looks:
                changes.append([_norm(change) for change in moved])
            if step == steps and steps // 2 >= 2 * len(self.z):
                self._check_growth(changes, steps, phase)
            residual = max(largest, default=0.0)
            if residual <= tolerance:
                break
        return Settled(step, residual)

    def step(self) -> None:
        """Update every layer once."""
        for group in self.groups:
            for k, z in [(k, self._updated(k)) for k in group]:
                self.z[k] = z
                for e in self.net.out_of[k]:
                    self._linearisations.pop(e, None)

    def drive(self, k: int, dtype: torch.dtype) -> Tensor:
        """Σ A(z_j) over the terms into layer k, in this type: of a read-out what it says."""
        return _sum(list(self._driving(k)), dtype)

    def _updated(self, k: int) -> Tensor:
        """The new state of layer k."""
        a = _sum([*self._driving(k), *self._pulling(k)], self.z[k].dtype)
        if self.noise is not None:
            a.add_(self.noise(a))
        return self.copies.activate(self.net.potentials[k], a)

    def _driving(self, k: int) -> Iterator[_Part]:
        """What is below layer k."""
        if k in self._drives:
            yield _Part(self._drives[k], 1.0, False)
        for e in self.net.into[k]:
            synapse, source, _ = self.net.terms[e]
            if source > 0:
                seen = self._look(e)[0]
                drive = self._synapses[e].drive(seen)  # of some what they have seen, and will see again
                yield _Part(drive, 1.0, drive is not seen and not synapse.aliases)

    def _pulling(self, k: int) -> Iterator[_Part]:
        """What is above it, and what the world does to it."""
        for e in self.net.out_of[k]:
            term = self.net.terms[e]
            sent = None if term.loop else self._sent(term.target, self.z[k].dtype)
            if sent is not None:
                down = self._synapses[e].down(sent.to(product_dtype(sent)), self._look(e)[1])
                yield _Part(down, self.net.gain_of(e), not term.synapse.aliases)
        if self.force is not None and k in self.net.net.wiring.outputs:
            yield _Part(self.force(k, self.z[k]), 1.0, True)

    def _sent(self, k: int, dtype: torch.dtype) -> Tensor | None:
        """What layer k sends down: its state; of a read-out that is no state, how its loss pulls, if it does."""
        if k in self.z:
            return self.z[k]
        return None if self.force is None else self.force(k, self.drive(k, dtype))

    def _look(self, e: int) -> tuple[Tensor, Any]:
        """What a term sees of the state that it reads."""
        if e not in self._linearisations:
            z = self.z[self.net.terms[e].source]
            self._linearisations[e] = self._synapses[e].linearise(z.to(product_dtype(z)))
        return self._linearisations[e]

    def _check_growth(self, changes: Sequence[Sequence[float]], step: int, phase: str) -> None:
        for (k, z), (early, half, now) in zip(self.z.items(), zip(*changes, strict=True), strict=True):
            if half > 3 * early and now > 10 * half and now > 0.1 * _norm(z):
                raise DivergenceError(
                    f"the {phase} phase diverged by step {step}, layer {k}: "
                    f"its residual grew from {half:.3g} half way to {now:.3g}"
                )

    def _diverged(self, start: Mapping[int, Tensor], step: int, phase: str) -> DivergenceError:
        """Relax once more from the start, looking at every step."""
        again = Relaxation(
            self.net, self._drives, start, self.copies, groups=self.groups, force=self.force, noise=self.noise
        )
        for number in range(1, step + 1):
            again.step()
            for k, z in again.z.items():
                if not bool(torch.isfinite(z).all()):
                    return DivergenceError(
                        f"the {phase} phase diverged at step {number}, layer {k}: a state became NaN or infinite"
                    )
        return DivergenceError(f"the {phase} phase diverged by step {step}: a state became NaN or infinite")


def _sum(parts: Sequence[_Part], dtype: torch.dtype) -> Tensor:
    """The parts, each by its gain, in memory of their own and in this type.

    Feedback is small beside the drive: their sum must not be rounded as the products are.
    """
    first, *others = parts
    if not others:
        return first.tensor.to(dtype, copy=not first.own)
    total = first.tensor.to(dtype)
    second, *others = others
    spend = second.own and second.tensor.dtype == dtype
    total = torch.add(total, second.tensor, alpha=second.gain, out=second.tensor if spend else None)
    for part in others:
        total.add_(part.tensor, alpha=part.gain)
    return total


def _norm(z: Tensor) -> float:
    return float(torch.linalg.vector_norm(z, dtype=torch.float64))  # float32 squares overflow at 2e19


def _largest(z: Tensor) -> float:
    """max |z|, NaN if there is one."""
    low, high = torch.aminmax(z)  # a fraction of the time that a norm takes
    return abs(float(torch.maximum(-low, high)))
