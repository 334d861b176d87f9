"""A net read as a Hopfield net: its energy terms, the layers that settle, and what is read out.

Every edge j → k is the term -z_k·A(z_j) of the energy, felt at both ends, whatever the graph:
E(z) = Σ_k c_k (G_k(z_k) - Σ_{j→k} z_k·A_jk(z_j)), with c_k = 1 unless the feedback has a gain.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.net import Net, zeros
from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import Identity, Synapse, Transposed, product_dtype


class Term(NamedTuple):
    """An edge as a term of the energy: -z_k·A(z_j), or of a loop -½ z_k·(A(z_k) + A(0)) with A its own adjoint.

    Attributes:
        synapse: A.
        source: j, a layer or an input.
        target: k.
    """

    synapse: Synapse
    source: int
    target: int

    @property
    def loop(self) -> bool:
        """Whether it leads from a layer to itself, which feels it once: as its drive."""
        return self.source == self.target

    def agreement(self, z: Mapping[int, Tensor]) -> Tensor:
        """What it takes from the energy of every sample, without c_k; shape (B,)."""
        below, above = z[self.source], z[self.target]
        if not self.loop:
            return _dot(above, self.synapse(below))
        return _dot(above, self.synapse(below) + self.synapse(torch.zeros_like(below))) / 2


@dataclass(frozen=True)
class HopfieldNet:
    """The energy terms of a net, and which of its layers settle.

    Args:
        net: of any wiring. An edge up and one down between two layers are tied, a pair that is one term; further
            edges the same way are terms of their own; a loop has symmetric weights.
        readouts: outputs that no edge leads out of, whose drives Σ A(z_j) are what the net says.
        neurons: for read-outs that settle all the same, the potential of their neurons; others are no states.
        gain: γ: feedback from k to j comes down with γ to the power of r_j - r_k, and c_k = γ^{-r_k}, r_k being
            the longest way from k to a layer that no edge leads out of. In a chain γ from layer to layer.

    Attributes:
        terms: the energy terms, by their targets.

    Raises:
        DualpropError: naming an edge that is no energy term.

    Example:
        >>> import dualprop as dp
        >>> hopfield = HopfieldNet(dp.nets.hopfield_mlp([4, 8, 3], strength=1.0))
        >>> [(term.source, term.target) for term in hopfield.terms]
        [(0, 1), (1, 2)]
    """

    net: Net
    readouts: frozenset[int] = frozenset()
    neurons: Mapping[int, Potential] = field(default_factory=dict)
    gain: float = 1.0
    terms: tuple[Term, ...] = field(init=False)
    _parts: list[list[object]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(_terms(self.net)))
        object.__setattr__(self, "_parts", _parts(self.net))

    def check_parts(self) -> None:
        """Refuse a net in which a synapse or a potential has been replaced since.

        Raises:
            DualpropError: naming the layer.
        """
        for k, (now, before) in enumerate(zip(_parts(self.net), self._parts, strict=True), 1):
            if any(map(operator.is_not, now, before)):
                raise DualpropError(
                    f"net: a synapse or the potential of {self.net.wiring.name(k)} has been replaced since the "
                    "rule was made; make the rule anew"
                )

    @cached_property
    def potentials(self) -> dict[int, Potential]:
        """G_k of the layers that settle, by number."""
        of_net = {k: layer.potential for k, layer in enumerate(self.net.stack, 1) if k not in self.readouts}
        return dict(sorted({**of_net, **self.neurons}.items()))

    @cached_property
    def into(self) -> dict[int, list[int]]:
        """The terms into each layer, by its number."""
        return {k: [e for e, t in enumerate(self.terms) if t.target == k] for k in self.net.wiring.out_of if k > 0}

    @cached_property
    def out_of(self) -> dict[int, list[int]]:
        """The terms out of each layer and input."""
        return {k: [e for e, t in enumerate(self.terms) if t.source == k] for k in self.net.wiring.out_of}

    @cached_property
    def neighbours(self) -> dict[int, set[int]]:
        """For each layer that settles the others that a term joins it to."""
        pairs = [{t.source, t.target} for t in self.terms if not t.loop]
        return {
            k: {j for pair in pairs if k in pair for j in pair if j != k and j in self.potentials}
            for k in self.potentials
        }

    @cached_property
    def ranks(self) -> dict[int, int]:
        """r_k of every layer; for nets without cycles but loops."""
        ranks: dict[int, int] = {}
        for k in sorted(self.into, reverse=True):
            above = [ranks[self.terms[e].target] + 1 for e in self.out_of[k] if not self.terms[e].loop]
            ranks[k] = max(above, default=0)
        return ranks

    def weight(self, k: int) -> float:
        """c_k."""
        return 1.0 if self.gain == 1 else self.gain ** -self.ranks[k]

    def gain_of(self, e: int) -> float:
        """What multiplies the feedback of a term."""
        _, source, target = self.terms[e]
        return 1.0 if self.gain == 1 else self.gain ** (self.ranks[source] - self.ranks[target])

    def drives(self, inputs: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """What the inputs drive, by layer: it stands still while states settle."""
        drives: dict[int, Tensor] = {}
        for term in self.terms:
            if term.source <= 0:
                x = inputs[term.source]
                a = term.synapse(x.to(product_dtype(x)))
                drives[term.target] = a if term.target not in drives else drives[term.target] + a
        return drives

    def zeros(self, inputs: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The states of the layers that settle, at zero."""
        shapes = self.net.state_shapes([tuple(inputs[-n].shape[1:]) for n in range(len(inputs))])
        return {k: zeros(inputs[0], shapes[k]) for k in self.potentials}

    def says(self, z: Mapping[int, Tensor]) -> list[Tensor]:
        """The outputs in these states of inputs and layers, in the inputs' type; differentiable by autograd."""
        return [self._drive(k, z) if k in self.readouts else z[k].to(z[0].dtype) for k in self.net.wiring.outputs]

    def by_number(self, z: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """These states, and what is read out of them where that is no state."""
        return {**z, **{k: self._drive(k, z) for k in self.readouts if k not in self.potentials}}

    def _drive(self, k: int, z: Mapping[int, Tensor]) -> Tensor:
        sources = [(self.terms[e].synapse, z[self.terms[e].source]) for e in self.into[k]]
        first, *others = [synapse(below.to(product_dtype(below))) for synapse, below in sources]
        drive: Tensor = first.to(z[0].dtype)
        for other in others:
            drive = drive + other
        return drive

    def energy(self, z: Mapping[int, Tensor]) -> Tensor:
        """E(z) per sample.

        Args:
            z: the states of inputs and layers, each of shape (B, ...).

        Returns:
            The energies, shape (B,); infinite where a state is outside its potential's domain.

        Example:
            >>> import torch, dualprop as dp
            >>> hopfield = HopfieldNet(dp.nets.mlp([2, 3, 1], "hard-sigmoid"))
            >>> hopfield.energy({k: torch.ones(4, n) for k, n in enumerate((2, 3, 1))}).shape
            torch.Size([4])
        """
        total = z[0].new_zeros(len(z[0]))
        for k, potential in self.potentials.items():
            total = total + self.weight(k) * potential.energy(z[k])
            for e in self.into[k]:
                total = total - self.weight(k) * self.terms[e].agreement(z)
        return total


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(1)


def _terms(net: Net) -> Iterator[Term]:
    """The energy terms of a net, one for each edge but the second of a tied pair.

    Raises:
        DualpropError: for edges both ways between two layers that are not such a pair, or a loop whose weights are
            not symmetric.
    """
    wiring, synapses = net.wiring, net.synapses
    for e, ((source, target), synapse) in enumerate(zip(wiring.edges, synapses, strict=True)):
        arrow, turned = wiring.arrow(e), (target, source)
        back = [o for o, edge in enumerate(wiring.edges) if edge == turned and source != target]
        ties = [o for o in back if _is_tied(net, e, o)]
        pairs = [o for o in back if _is_tied(net, o, e)]
        if back and len(ties) + len(pairs) != 1:
            raise DualpropError(
                f"net: edge {arrow}: joins the same layers as {wiring.arrow(back[0])}, but an energy has one term "
                "for both ways: tie them by dualprop.Transposed with scale=1 (hopfield_mlp: net_settings "
                "strength=1), or leave one out"
            )
        if ties:
            continue
        if source == target and not synapse.self_adjoint:
            raise DualpropError(
                f"net: edge {arrow}: a loop is a term of an energy only if its weights are symmetric"
            )
        yield Term(synapse, source, target)


def _is_tied(net: Net, e: int, other: int) -> bool:
    """Whether an edge is the very transpose of another, back to where that comes from; of identities that down."""
    synapse, back = net.synapses[e], net.synapses[other]
    source, target = net.wiring.edges[e]
    if net.wiring.edges[other] != (target, source):
        return False
    if isinstance(synapse, Transposed):
        return synapse.tied is back and synapse.scale == 1
    both = isinstance(synapse, Identity) and isinstance(back, Identity)
    return both and synapse.self_adjoint and back.self_adjoint and source > target


def _parts(net: Net) -> list[list[object]]:
    """What each layer is made of."""
    return [[layer.potential, *layer.synapses] for layer in net.stack]
