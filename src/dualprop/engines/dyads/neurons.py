"""Layers of dyadic neurons and the links between them: objects that read their own ends and nothing else.

A link is a synapse linearised at the state below; it drives, sends down and learns. A layer of neurons owns its
two states; it reads the links into it, and through the links out of it what stands above. Both belong to whoever
runs them, one inference, a stream or a worker: the net holds weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import Linearisation, Synapse


class Link:
    """A synapse between two layers of neurons, linearised at the mean state of the one below.

    Args:
        synapse: A.
        below: the neurons whose mean it reads.
        above: the neurons that it drives.
        weight: of its feedback beside that of the other links out of `below`.

    Attributes:
        driven: the drive that is held for the neurons above, if any.
        sent: the feedback that is held for the neurons below, if any.
    """

    def __init__(self, synapse: Synapse, below: Neurons, above: Neurons, weight: float = 1.0) -> None:
        self.synapse, self.below, self.above, self.weight = synapse, below, above, weight
        self.driven: Tensor | None = None
        self.sent: Tensor | None = None
        self._linearisation: Linearisation | None = None

    def drive(self) -> Tensor:
        """A(z̄) of the neurons below."""
        p, self._linearisation = self.synapse.linearise(self.below.mean)
        self.below.rest()
        return self.synapse.affine(p)

    def down(self) -> Tensor:
        """A^T (z^+ - z^-) of the neurons above, at the mean below."""
        if self._linearisation is None:
            if self.synapse.eager:
                self.driven = self.drive()  # to see is to drive, and it may be asked for
            else:
                self._linearisation = self.synapse.linearise(self.below.mean)[1]
        assert self._linearisation is not None
        assert self.above.difference is not None
        feedback = self.synapse.adjoint_at(self.above.difference, self._linearisation)
        return feedback if self.weight == 1 else feedback.mul(self.weight)

    def learn(self, delta: Tensor, free: bool = False) -> None:
        """Add the gradient of Σ_batch <delta, A(z̄)> to `.grad`, and forget.

        Args:
            delta: for the neurons above.
            free: whether nobody reads the mean below afterwards.
        """
        mean = self.below.mean
        self.sent = self.below.pull = None
        self.forget()
        if free:
            self.below.free()
        self.synapse.add_grad(delta, mean)

    def forget(self) -> None:
        """The state below has moved."""
        self.driven = self._linearisation = None


class Neurons:
    """One layer of dyads, or an input.

    Args:
        number: k; 0 and below for an input.
        potential: f_k; None for an input.
        zeros: makes the state of a layer that has never been updated.

    Attributes:
        into: the links into it.
        out: the links out of it.
        difference: z^+ - z^- as the products read it; None where it is zero because nothing has nudged the layer.
        total: the sum of its drives, while it is of use.
        pull: the sum of its feedbacks, while it is of use.
        states: z^+ and z^- in full, if they are kept.
    """

    def __init__(self, number: int, potential: Potential | None, zeros: Callable[[int], Tensor]) -> None:
        self.number, self.potential, self._zeros = number, potential, zeros
        self.into: list[Link] = []
        self.out: list[Link] = []
        self.difference: Tensor | None = None
        self.total: Tensor | None = None
        self.pull: Tensor | None = None
        self.states: tuple[Tensor, Tensor] | None = None
        self._mean: Tensor | None = None
        self._plain: torch.dtype | None = None  # z̄ is f(a), made again from a in this type when it is asked for

    @property
    def mean(self) -> Tensor:
        """z̄ as the products read it."""
        if self._mean is not None:
            return self._mean
        if self._plain is not None and self.potential is not None and self.total is not None:
            return self.potential(self.total).to(self._plain)
        return self._zeros(self.number)

    def rest(self) -> None:
        """The one product that reads it has read the mean: where the drive tells it, there is no room for both."""
        if self._plain is not None and len(self.out) == 1:
            self._mean = None

    def move(self, mean: Tensor | None, difference: Tensor | None, dtype: torch.dtype, *, damped: bool) -> None:
        """New states; what the links knew of the old ones goes.

        Args:
            mean: z̄, or None where nobody reads it.
            difference: z^+ - z^-, or None for zero.
            dtype: the type of the products.
            damped: whether the mean is not f(a), though nothing has nudged it.
        """
        before, self.difference = self.difference, difference
        if mean is not None:
            self._mean = mean.to(dtype)
        told = difference is None and self.total is not None and bool(self.out) and not damped
        self._plain = dtype if told else None
        if before is not None or difference is not None:
            for link in self.into:
                link.sent = link.below.pull = None
        for link in self.out:
            link.forget()
            link.above.undo()
            if not link.synapse.linear:
                link.sent = self.pull = None

    def undo(self) -> None:
        """Its drive is no longer that of the states below; what it tells of the state is written down."""
        if self._plain is not None:
            self._mean, self._plain = self.mean, None
        self.total = None

    def drives(self, anew: Sequence[Link], hold: Sequence[Link]) -> Tensor:
        """The sum of its drives, made of what is held and of these, driven anew."""
        for link in anew:
            link.driven = link.drive()
        self.total = _sum([(link.driven, link.synapse) for link in self.into])
        for link in self.into:
            if link not in hold:
                link.driven = None
        return self.total

    def feedbacks(self, fed: Sequence[Link], anew: Sequence[Link], hold: Sequence[Link]) -> Tensor:
        """The sum of its feedbacks, made of what is held and of these, sent down anew."""
        for link in anew:
            link.sent = link.down()
        self.pull = _sum([(link.sent, link.synapse) for link in fed])
        for link in fed:
            if link not in hold:
                link.sent = None
        return self.pull

    def free(self) -> None:
        """Nobody reads the mean any more."""
        self._mean = self._plain = None


def _sum(parts: Sequence[tuple[Tensor | None, Synapse]]) -> Tensor:
    """In memory of its own, for it may be written over."""
    tensors = [part for part, _ in parts if part is not None]
    assert len(tensors) == len(parts), "the plan names every part that is to be computed"
    if len(tensors) == 1:
        return tensors[0].clone() if parts[0][1].aliases else tensors[0]
    total = torch.add(tensors[0], tensors[1])
    for tensor in tensors[2:]:
        total.add_(tensor)
    return total
