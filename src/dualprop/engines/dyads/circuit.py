"""A tick of a stream: a plan bound once to memory that stays, and done again at every tick.

There is a layer of `Neurons` and a `Link` for each slot of a delay line. What a layer and the links into it have
seen at a tick waits in the slot of that tick until the error of the same frame comes down, and that error waits
there for layers to which it has a longer way. The instructions are those of the plan; where a synapse knows a call
that writes into given memory, that is bound in place of its ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dualprop.engines.dyads.fixed import summing
from dualprop.engines.dyads.frames import ages, arrivals
from dualprop.engines.dyads.memory import Gate, Memory
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Planner
from dualprop.engines.dyads.program import Do, Instruction, listed
from dualprop.engines.dyads.schedules import Update
from dualprop.engines.dyads.states import Nudge, dyad
from dualprop.nets.kernels.blockwise import suits_blocks
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.shapes import Shape

Call = Callable[[], object]


class Part(NamedTuple):
    """Calls that are made if a gate is open."""

    gate: Gate
    calls: list[Call]


class Label(NamedTuple):
    """The target of the frame that the output layer is nudged for.

    Attributes:
        gate: whether there is one.
        target: shape (B, ...).
        weight: 1 for every sample that has a label and 0 for others, shape (B, 1, ...).
    """

    gate: Gate
    target: Tensor
    weight: Tensor


class Circuit:
    """The dyads of a net, and what happens in one tick of a stream.

    Args:
        net: of one input and one output, from which no edge leads on.
        nudge: how states are nudged and averaged.
        loss: of the output layer.
        updates: the layers that a tick updates, in order.
        lags: how many ticks ago each layer 1..L saw the frame whose error comes to it now; 0 pairs the error with
            what the layer sees now.
        forward: whether the mean is f(a), not that of the nudged states.
        learns: from a link what makes it learn.
        shapes: of one sample of z_0 .. z_L.
        samples: B, how many samples a tick takes at once.
        like: a tensor of the type and on the device of the states.

    Attributes:
        slots: R, the length of the delay lines.
        fixed: whether all links have calls that read and write given memory.
        labels: what the output layer is nudged towards, by how many ticks ago that frame came in.
    """

    def __init__(
        self,
        net: Net,
        nudge: Nudge,
        loss: Loss,
        updates: Sequence[Update],
        *,
        lags: Sequence[int],
        forward: bool,
        learns: Callable[[Link], Call],
        shapes: Sequence[Shape],
        samples: int,
        like: Tensor,
    ) -> None:
        self._net, self._wiring, self._nudge, self._loss = net, net.wiring, nudge, loss
        self._updates, self._lags, self._forward, self._learns = updates, (0, *lags), forward, learns
        (self._output,) = net.wiring.outputs
        self._ages = ages(updates, net.wiring)[-1]
        self.slots = max(lags) + 1
        self.memory = Memory(shapes, samples, self.slots, like)
        self._label(arrivals(updates, net.wiring), lags[self._output - 1])
        self._always = Gate(True)
        self._fed = [Gate() for _ in shapes]
        self._rest = [Gate() for _ in shapes]
        self._pulls = [torch.empty_like(each[0]) for each in self.memory.differences]
        self._sent = [self._beside(j, self._wiring.out_of[j]) for j, _ in self._wiring.edges]
        self._driven = [self._beside(k, self._wiring.into[k]) for _, k in self._wiring.edges]
        self._neurons = [self._layers(slot) for slot in range(self.slots)]
        self._frames = list(self.memory.means[0])
        self._links = [self._linked(slot) for slot in range(self.slots)]
        self.fixed = all(self._fixed(link) for link in self._links[0])
        for link in (link for links in self._links for link in links):
            link.fresh = forward and not self._fixed(link)  # no mean is written to between
        self._ticks = [self._bound(slot) for slot in range(self.slots)]

    def _label(self, backs: dict[int, int], late: int) -> None:
        """Where labels are put, and which of them each update of the output is nudged for."""
        target = self.memory.differences[self._output - 1][0]
        ones = target.new_ones(len(target), *(1 for _ in target.shape[1:]))
        agos = {back + late for back in backs.values()}
        self.labels = {ago: Label(Gate(), torch.zeros_like(target), ones.clone()) for ago in agos}
        self._nudged_for = {number: self.labels[back + late] for number, back in backs.items()}

    def _beside(self, k: int, edges: Sequence[int]) -> Tensor | None:
        """Memory for what one of several edges brings to a layer, before all that is summed; one needs none."""
        return torch.empty_like(self._pulls[k - 1]) if k > 0 and len(edges) > 1 else None

    def _layers(self, slot: int) -> list[Neurons]:
        """All layers as they are in one slot."""
        memory, layers = self.memory, []
        for k, mean in enumerate(memory.means):
            neurons = Neurons(k, self._net.stack[k - 1].potential if k else None)
            neurons.mean = mean[slot]
            if k:
                neurons.total, neurons.pull = memory.drives[k - 1][slot], self._pulls[k - 1]
                neurons.difference = neurons.delta = memory.differences[k - 1][slot]
            layers.append(neurons)
        return layers

    def _linked(self, slot: int) -> list[Link]:
        """The links whose upper ends see in one slot: what is below as it was when the same frame was there."""
        return [
            Link(synapse, self._neurons[(slot - self._ages[k] + self._ages[j]) % self.slots][j], above)
            for synapse, (j, k) in zip(self._net.synapses, self._wiring.edges, strict=True)
            for above in [self._neurons[slot][k]]
        ]

    def _own(self, k: int, slot: int) -> int:
        """The slot of the frame whose error comes to a layer at the ticks of a slot."""
        return (slot - self._lags[k]) % self.slots

    def _above(self, e: int, slot: int) -> int:
        """The slot of that frame in the layer from which an edge sends the error down."""
        j, k = self._wiring.edges[e]
        return (self._own(j, slot) + self._ages[k] - self._ages[j]) % self.slots

    def enter(self, tick: int, x: Tensor | None) -> None:
        """What comes in at a tick; what was there before if nothing does."""
        here, before = self._frames[tick % self.slots], self._frames[tick % self.slots - 1]
        here.copy_(before if x is None else x)

    def run(self, tick: int) -> None:
        """Do a tick: update, and learn."""
        for gate, calls in self._ticks[tick % self.slots]:
            if gate.open:
                for call in calls:
                    call()

    def output(self, tick: int) -> Tensor:
        """What the output layer says of the drive that it has got at a tick, in memory of its own."""
        n = self._neurons[tick % self.slots][self._output]
        assert n.potential is not None
        assert n.total is not None
        return n.potential.over(n.total.clone())

    def see(self) -> None:
        """See every kept mean anew, after they have been taken back."""
        for link in (link for links in self._links for link in links):
            if link.synapse.lasting:
                link.see()

    def _bound(self, slot: int) -> list[Part]:
        """The parts of the ticks of one slot."""
        everywhere = [True] * len(self.memory.means)  # gates say whether there is a difference
        linear = [synapse.linear for synapse in self._net.synapses]
        planner = Planner(self._wiring, linear, different=everywhere)
        parts = self._forgetting(slot)
        for number, step in enumerate(planner.plan(self._updates, learn=True), -1):  # the first has no update
            latched = False
            for instruction in listed(step, self._wiring):
                if instruction.do is Do.UPDATE and not latched:
                    latched = True
                    hidden = [block.layer for block in step.blocks if block.layer != self._output]
                    parts.append(Part(self._always, [self._latching(k, slot) for k in hidden]))
                parts += self._parts(instruction, slot, self._nudged_for.get(number))
        return _merged(parts)

    def _forgetting(self, slot: int) -> list[Part]:
        """With delay lines: the errors in the slots to which others come now are of frames that are long gone."""
        gates = [gates[self._own(k, slot)] for k, gates in enumerate(self.memory.erring, 1)]

        def forget() -> None:
            for gate in gates:
                gate.open = False

        return [Part(self._always, [forget])] if self._forward else []

    def _latching(self, k: int, slot: int) -> Call:
        """Remembers whether anything comes down to a layer, before those above are updated."""
        gates = [self._erring(e, slot) for e in self._wiring.out_of[k]]
        fed, rest = self._fed[k], self._rest[k]

        def latch() -> None:
            fed.open, rest.open = False, True
            for gate in gates:
                if gate.open:
                    fed.open, rest.open = True, False

        return latch

    def _erring(self, e: int, slot: int) -> Gate:
        """Whether an edge has anything to send down."""
        return self.memory.erring[self._wiring.edges[e][1] - 1][self._above(e, slot)]

    def _parts(self, instruction: Instruction, slot: int, label: Label | None) -> list[Part]:
        """What does an instruction at the ticks of a slot."""
        number = instruction.number
        match instruction.do:
            case Do.SEE:
                link = self._links[slot][number]
                return [] if self._fixed(link) else [Part(self._always, [link.see])]
            case Do.DRIVE:
                return [Part(self._always, [self._driving(number, slot)])]
            case Do.GATHER:
                return self._gathering(number, slot)
            case Do.SEND:
                return [Part(self._erring(number, slot), [self._sending(number, slot)])]
            case Do.COLLECT:
                return self._collecting(number, slot)
            case Do.UPDATE if number == self._output:
                return self._updating_output(slot, label if instruction.nudged else None)
            case Do.UPDATE:
                return self._updating(number, slot)
            case Do.LEARN:
                return self._learning(number, slot)
            case _:  # a link's step scales what it learns
                return []

    def _fixed(self, link: Link) -> bool:
        """Whether a link has calls that read and write given memory, so that there is nothing to see anew."""
        assert link.above.total is not None
        assert link.below.mean is not None
        return link.synapse.driving(link.below.mean, link.above.total) is not None

    def _driving(self, e: int, slot: int) -> Call:
        """Brings the state below to where the drives of the layer are summed."""
        link, beside = self._links[slot][e], self._driven[e]
        z, out = link.below.mean, link.above.total if beside is None else beside
        assert z is not None
        assert out is not None

        def drive() -> None:
            link.drive()
            assert link.driven is not None
            out.copy_(link.driven)
            if not link.synapse.lasting:
                link.linearisation = None

        return link.synapse.driving(z, out) or drive

    def _gathering(self, k: int, slot: int) -> list[Part]:
        """The sum of a layer's drives, where it has several."""
        total, driven = self._neurons[slot][k].total, [self._driven[e] for e in self._wiring.into[k]]
        several = [each for each in driven if each is not None]
        assert total is not None
        return [Part(self._always, list(summing(several, total)))] if several else []

    def _sending(self, e: int, slot: int) -> Call:
        """Brings the difference above to where the feedbacks to a layer are summed."""
        link, beside = self._links[self._above(e, slot)][e], self._sent[e]
        delta, out = link.above.difference, link.below.pull if beside is None else beside
        assert delta is not None
        assert out is not None

        def send() -> None:
            if link.linearisation is None:
                link.see()
            link.send()
            assert link.sent is not None
            out.copy_(link.sent)
            if not link.synapse.lasting:
                link.linearisation = None

        return (link.synapse.sending(delta, out) if self._fixed(link) else None) or send

    def _collecting(self, k: int, slot: int) -> list[Part]:
        """The sum of the feedbacks to a layer, where it has several."""
        pull, some = self._pulls[k - 1], list[tuple[Gate, Tensor, float]]()
        for e in self._wiring.out_of[k]:
            if (sent := self._sent[e]) is not None:
                weight = self._nudge.weight(self._wiring, *self._wiring.edges[e])
                some.append((self._erring(e, slot), sent, weight))

        def collect() -> None:
            pull.zero_()
            for gate, sent, weight in some:
                if gate.open:
                    pull.add_(sent, alpha=weight)

        return [Part(self._always, [collect])] if some else []

    def _updating(self, k: int, slot: int) -> list[Part]:
        """The update of a hidden layer: z^± = f(a ± {α, ᾱ} r d), or f(a) where nothing comes down."""
        n, own = self._neurons[slot][k], self._neurons[self._own(k, slot)][k]
        f, a, d, mean, difference = n.potential, n.total, n.pull, n.mean, own.difference
        assert f is not None
        assert a is not None
        assert d is not None
        assert mean is not None
        assert difference is not None
        assert own.total is not None
        met = own.total
        up, down = self._nudge.steps(self._wiring, k)
        share, erring = self._nudge.share, self.memory.erring[k - 1][self._own(k, slot)]
        exact = torch.finfo(a.dtype).bits >= 32 and not suits_blocks(a)
        update = partial(f.dyad if exact else partial(dyad, f), d=d, up=up, down=down, share=share)

        rest = partial(f.put, a, mean)

        def err() -> None:
            difference.copy_(update(met)[1])

        def nudged() -> None:
            z, apart = update(a)
            mean.copy_(z)
            difference.copy_(apart)

        come, gone = partial(setattr, erring, "open", True), partial(setattr, erring, "open", False)
        if self._forward:
            return [Part(self._always, [rest]), Part(self._fed[k], [err, come])]
        return [Part(self._fed[k], [nudged, come]), Part(self._rest[k], [rest, gone])]

    def _updating_output(self, slot: int, label: Label | None) -> list[Part]:
        """The update of the output layer, for a frame that may have a label by now."""
        own = self._own(self._output, slot)
        n, erring = self._neurons[own][self._output], self.memory.erring[self._output - 1][own]
        gone = Part(self._always, [partial(setattr, erring, "open", False)])
        if label is None:
            return [gone]
        f, a, difference = n.potential, n.total, n.difference
        assert f is not None
        assert a is not None
        assert difference is not None
        up, down = self._nudge.at(self._output)
        loss, (_, target, weight) = self._loss, label

        def nudged() -> None:
            plus, minus = loss.output_step(f, a, target, up, down)
            torch.sub(plus, minus, out=difference)
            erring.open = True

        some = [] if len(target) == 1 else [partial(difference.mul_, weight)]
        return [gone, Part(label.gate, [nudged, *some])]

    def _learning(self, e: int, slot: int) -> list[Part]:
        """What makes an edge learn, if it has anything to."""
        k = self._wiring.edges[e][1]
        own = self._own(k, slot)
        link = self._links[own][e]
        learns = any(p.requires_grad for part in link.synapse.parts for p in part.parameters())
        return [Part(self.memory.erring[k - 1][own], [self._learns(link)])] if learns else []


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Neighbours with the same gate as one."""
    merged: list[Part] = []
    for gate, calls in parts:
        if merged and merged[-1].gate is gate:
            merged[-1].calls.extend(calls)
        elif calls:
            merged.append(Part(gate, list(calls)))
    return merged
