"""A program bound to memory that stays from batch to batch.

Where all is small, to ask objects what to do takes longer than to do it. So for batches of one shape every
instruction is bound once: a synapse's products to the very tensors that they read and write, a layer's update to
its drive and its states. The mathematics stays that of the synapses, the potentials and the losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.engines.dyads.binding import Bound
from dualprop.engines.dyads.blocks import Batch, Blocks, Call
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.program import Do, Instruction, Program
from dualprop.engines.dyads.states import Lasting, Nudge, dyad, is_exact
from dualprop.nets.kernels.blockwise import suits_blocks
from dualprop.nets.net import Net
from dualprop.nets.shapes import Shape

T = TypeVar("T")


class Kept(NamedTuple):
    """What is known of a program and a shape.

    Attributes:
        weights: where these were when it came last.
        tried: whether it has been tried to bind it.
        fixed: what came of it.
    """

    weights: list[tuple[object, ...]]
    tried: bool = False
    fixed: Fixed | None = None


class Memories:
    """What programs are bound to, for the last few: several rounds have several, and the last batch is smaller.

    Args:
        net: whose layers they are.
        nudge: how states are nudged and averaged.
    """

    MOST = 8

    def __init__(self, net: Net, nudge: Nudge) -> None:
        self._net, self._synapses, self._nudge = net, net.synapses, nudge
        self.kept: dict[tuple[object, ...], Kept] = {}

    def fixed(self, bound: Bound, batch: Batch) -> Fixed | None:
        """A program bound to memory for batches like this one, the second time that such a one comes.

        None the first time, for it may be the last, and where it cannot be.

        Args:
            bound: the program, as it is bound to registers.
            batch: whose inputs have to be contiguous, for the products of others round otherwise.
        """
        if not all(x.is_contiguous() for x in batch.inputs):
            return None
        weights = [synapse.bound_to() for synapse in self._synapses]
        key = bound, batch.low, *[(x.dtype, x.device, x.shape) for x in batch.inputs]
        known = self.kept.pop(key, None)
        if known is None or known.weights != weights:
            while len(self.kept) >= self.MOST:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = Kept(weights)
            return None
        if not known.tried:
            known = Kept(weights, True, self._bind(bound.program, batch))
        self.kept[key] = known  # the last to go
        return known.fixed

    def _bind(self, program: Program, batch: Batch) -> Fixed | None:
        shapes = self._net.state_shapes([tuple(x.shape[1:]) for x in batch.inputs])
        try:
            return Fixed(program, self._net, self._nudge, batch, shapes)
        except NotFixed:
            return None


class NotFixed(Exception):
    """A program that cannot be bound so."""


class Fixed:
    """A program for batches of one shape and type, with the weights where they are now.

    Args:
        program: the program.
        net: whose layers they are.
        nudge: how states are nudged and averaged.
        batch: one like those to come.
        shapes: of one sample of each input and layer, by their numbers.

    Attributes:
        neurons: the layers and inputs by their numbers; their tensors stay.

    Raises:
        NotFixed: where a synapse has no calls that read and write given memory, or a state is large.
    """

    def __init__(
        self, program: Program, net: Net, nudge: Nudge, batch: Batch, shapes: Mapping[int, Shape]
    ) -> None:
        self._wiring, self._nudge, self._like = net.wiring, nudge, batch.x
        potentials = [layer.potential for layer in net.stack]
        if any(f.draws for f in potentials) or any(register.of_edge for register in program.needs):
            raise NotFixed
        self._full, self._low = batch.full, batch.low
        self._copies = [None if batch.low is batch.full else there(s.copies(batch.low)) for s in net.synapses]
        self._renew = [copies.renew for copies in self._copies if copies is not None]
        self.neurons = {k: Neurons(k, potentials[k - 1] if k > 0 else None) for k in net.wiring.out_of}
        for k, n in self.neurons.items():
            n.mean = self._memory(shapes[k])
            if k > 0:
                n.difference, n.total, n.pull = (torch.empty_like(n.mean) for _ in range(3))
        self._links = [self._link(e, net) for e in range(len(net.wiring.edges))]
        self._blocks = FixedBlocks(net.wiring, nudge, 0.0)
        self._blocks.begin(batch)
        self._inputs = [there(self.neurons[-number].mean) for number in range(len(batch.inputs))]
        self._needs = [
            (k, names.index(name), there(getattr(self.neurons[k], name)))
            for name, k in program.needs
            if k > 0 and name in (names := ("mean", "difference"))
        ]
        self._different = {k for k, name, _ in self._needs if name}
        parameters = [id(p) for synapse in net.synapses for p in synapse.learnt()]
        if len(set(parameters)) < len(parameters):
            raise NotFixed
        self._calls = [call for each in program.instructions for call in self._bound(each)]

    def run(self, batch: Batch, start: Lasting) -> None:
        """Do it.

        Args:
            batch: the batch.
            start: mean and difference of each layer that it begins with; none is zero.
        """
        self._blocks.begin(batch)
        for z, x in zip(self._inputs, batch.inputs, strict=True):
            z.copy_(x)
        for k, name, register in self._needs:
            found = start[k - 1][name] if start else None
            if found is None:
                register.zero_()
            else:
                register.copy_(found)
        for call in self._renew:
            call()
        for call in self._calls:
            call()
        self._blocks.end()

    def outputs(self) -> list[Tensor]:
        """What the outputs have said, in memory of its own."""
        outputs = [self.neurons[k] for k in self._wiring.outputs]
        return [n.said.clone() if n.said is n.total else n.said for n in outputs]

    def lasting(self) -> Lasting:
        """Mean and difference of each layer at the end, copied."""
        layers = [self.neurons[k] for k in range(1, self._wiring.depth + 1)]
        return [
            (self._wide(n.mean), self._wide(n.difference) if n.number in self._different else None) for n in layers
        ]

    def _wide(self, state: Tensor | None) -> Tensor:
        return there(state).to(self._full, copy=True)

    def _memory(self, shape: Shape) -> Tensor:
        memory = self._like.new_empty(self._like.shape[0], *shape, dtype=self._low)
        if suits_blocks(memory):
            raise NotFixed
        return memory

    def _link(self, e: int, net: Net) -> Link:
        """An edge; where it is the only one, what it drives or sends is all there is."""
        source, target = self._wiring.edges[e]
        below, above = self.neurons[source], self.neurons[target]
        link = Link(net.synapses[e], below, above, self._nudge.weight(self._wiring, source, target))
        below.out.append(link)
        above.into.append(link)
        alone = len(self._wiring.into[target]) == 1
        link.driven = above.total if alone else torch.empty_like(there(above.total))
        alone = len(self._wiring.out_of[source]) == 1 and source > 0
        link.sent = below.pull if alone else torch.empty_like(there(below.mean))
        return link

    def _bound(self, instruction: Instruction) -> Iterator[Call]:
        """What does an instruction."""
        if instruction.do in _OF_EDGES:
            yield from self._of_edge(instruction.do, instruction.number)
            return
        n, edges = self.neurons[instruction.number], [self._links[e] for e in instruction.edges]
        match instruction.do:
            case Do.GATHER:
                yield from summing([there(link.driven) for link in edges], there(n.total))
            case Do.COLLECT:
                yield from summing([there(link.sent) for link in edges], there(n.pull))
            case Do.SAY:
                yield self._blocks.saying(n)
            case Do.SCALE:
                yield self._blocks.scaling(n, instruction.spend)
            case Do.UPDATE:
                yield self._blocks.updating(n, instruction)
                if instruction.fed or instruction.nudged:
                    self._different.add(n.number)
                else:
                    self._different.discard(n.number)
                    unread = any(name == "difference" for name, _ in instruction.frees)
                    yield from [] if unread else [there(n.difference).zero_]

    def _of_edge(self, do: Do, number: int) -> Iterator[Call]:
        link, low = self._links[number], self._copies[number]
        synapse, z = link.synapse, there(link.below.mean)
        match do:
            case Do.DRIVE:
                yield there(synapse.driving(z, there(link.driven), low))
            case Do.SEND:
                yield there(synapse.sending(there(link.above.difference), there(link.sent), low))
                if link.weight != 1:
                    yield partial(there(link.sent).mul_, link.weight)
            case Do.LEARN:
                yield there(synapse.learning(there(link.above.delta), z))


_OF_EDGES = (Do.SEE, Do.DRIVE, Do.SEND, Do.LEARN)


class FixedBlocks(Blocks):
    """The block updates of layers whose states, drives and feedbacks have their places."""

    @override
    def scaling(self, n: Neurons, spend: bool) -> Call:
        scale, difference = self._scale(n), there(n.difference)
        n.delta = difference if spend else torch.empty_like(difference)
        return partial(torch.mul, difference, scale, out=n.delta)

    @override
    def _resting(self, n: Neurons, keep: bool) -> Call:
        return partial(there(n.potential).put, there(n.total), there(n.mean))

    @override
    def _nudged(self, n: Neurons, spend: bool, keep: bool) -> Call:
        return nudging(n, *self._nudge.steps(self._wiring, n.number), self._nudge.share)

    @override
    def _move(self, n: Neurons, plus: Tensor, minus: Tensor, mean: bool) -> None:
        torch.sub(plus, minus, out=there(n.difference))
        if mean:
            there(n.mean).copy_(plus if plus is minus else self._nudge.mean(plus, minus))


def nudging(n: Neurons, up: float, down: float, share: float) -> Call:
    """Mean and difference of z^+ = f(a + up d) and z^- = f(a - down d), in their places."""
    f, a, d, mean, difference = n.potential, there(n.total), there(n.pull), there(n.mean), there(n.difference)
    assert f is not None
    places, exact = (mean, difference), is_exact(f, a, up, down, share)

    def nudge() -> None:
        z, apart = f.dyad(a, d, up, down, share, places) if exact else dyad(f, a, d, up, down, share)
        if z is not mean:
            mean.copy_(z)
        if apart is not difference:
            difference.copy_(apart)

    return nudge


def summing(parts: Sequence[Tensor], total: Tensor) -> Iterator[Call]:
    """A sum in its place; nothing where it is its one part."""
    first, *others = parts
    if first is not total:
        yield partial(total.copy_, first)
    yield from (partial(total.add_, other) for other in others)


def there(part: T | None) -> T:
    """What has to be there.

    Raises:
        NotFixed: if it is not.
    """
    if part is None:
        raise NotFixed
    return part
