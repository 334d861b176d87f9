"""Layers of dyadic neurons and the links between them: objects that read their own ends and nothing else.

A link is a synapse linearised at the state below; it drives, sends down and learns. A layer of neurons owns its
two states; it reads the links into it, and through the links out of it what stands above. Both belong to whoever
runs them, one inference, a stream or a worker: the net holds weights alone. What they hold is fresh when whoever
runs them has seen to it; they keep no books.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import Linearisation, Synapse


class Link:
    """A synapse between two layers of neurons.

    Args:
        synapse: A.
        below: the neurons whose mean it reads.
        above: the neurons that it drives.
        weight: of its feedback beside that of the other links out of `below`.

    Attributes:
        operand: what its drive is made of: the mean below, pooled.
        linearisation: what its feedback must know of that mean.
        driven: the drive for the neurons above.
        sent: the feedback for the neurons below.
        fresh: whether what it has seen last is what it learns from.
    """

    __slots__ = ("above", "below", "driven", "fresh", "linearisation", "operand", "sent", "synapse", "weight")

    def __init__(self, synapse: Synapse, below: Neurons, above: Neurons, weight: float = 1.0) -> None:
        self.synapse, self.below, self.above, self.weight = synapse, below, above, weight
        self.operand: Tensor | None = None
        self.linearisation: Linearisation | None = None
        self.driven: Tensor | None = None
        self.sent: Tensor | None = None
        self.fresh = False

    def see(self) -> None:
        """What its drive is made of, and the linearisation, at the mean below."""
        assert self.below.mean is not None
        self.operand, self.linearisation = self.synapse.linearise(self.below.mean)

    def drive(self) -> None:
        """A(z̄) of the mean that it has seen."""
        assert self.operand is not None
        self.driven = self.synapse.affine(self.operand)

    def send(self) -> None:
        """A^T (z^+ - z^-) of the neurons above, at the mean below."""
        assert self.above.difference is not None
        assert self.linearisation is not None
        feedback = self.synapse.adjoint_at(self.above.difference, self.linearisation)
        self.sent = feedback if self.weight == 1 else feedback.mul(self.weight)

    def learn(self) -> None:
        """Add the gradient of Σ_batch <delta, A(z̄)> to `.grad`."""
        assert self.above.delta is not None
        assert self.below.mean is not None
        self.synapse.add_grad(self.above.delta, self.below.mean)


class Neurons:
    """One layer of dyads, or an input.

    Args:
        number: k; 0 and below for an input.
        potential: f_k; None for an input.

    Attributes:
        into: the links into it.
        out: the links out of it.
        mean: z̄ as the products read it.
        difference: z^+ - z^- as the products read it; None where it is zero because nothing has nudged the layer.
        states: z^+ and z^- in full, if they are kept; one tensor where nothing has nudged the layer.
        total: the sum of its drives.
        pull: the sum of its feedbacks.
        delta: the difference as its links learn from it.
        output: of an output layer: f(a) at its last update.
    """

    __slots__ = (
        "delta",
        "difference",
        "into",
        "mean",
        "number",
        "out",
        "output",
        "potential",
        "pull",
        "states",
        "total",
    )

    def __init__(self, number: int, potential: Potential | None) -> None:
        self.number, self.potential = number, potential
        self.into: list[Link] = []
        self.out: list[Link] = []
        self.mean: Tensor | None = None
        self.difference: Tensor | None = None
        self.states: tuple[Tensor, Tensor] | None = None
        self.total: Tensor | None = None
        self.pull: Tensor | None = None
        self.delta: Tensor | None = None
        self.output: Tensor | None = None

    @property
    def said(self) -> Tensor:
        """The output, once there is one."""
        assert self.output is not None
        return self.output

    def gather(self) -> None:
        """The sum of its drives."""
        self.total = _sum([link.driven for link in self.into], self.into[0])

    def collect(self, links: Sequence[Link]) -> None:
        """The sum of the feedbacks that have come down by these links."""
        self.pull = _sum([link.sent for link in links], links[0])


def _sum(parts: Sequence[Tensor | None], first: Link) -> Tensor:
    """In memory of its own, for it may be written over."""
    if len(parts) == 1 and parts[0] is not None:
        return parts[0].clone() if first.synapse.aliases else parts[0]
    tensors = [part for part in parts if part is not None]
    assert len(tensors) == len(parts), "the plan names every part that is to be computed"
    total = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        total.add_(tensor)
    return total
