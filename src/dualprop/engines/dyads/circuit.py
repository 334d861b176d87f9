"""A tick of a stream: a plan bound once to memory that stays, and done again at every tick.

There is a layer of `Neurons` and a `Link` for each slot of a delay line. What a layer and the links into it have
seen at a tick waits in the slot of that tick until the error of the same frame comes down. The instructions are
those of the plan; where a synapse knows a call that writes into given memory, that is bound in place of its
ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


class Gate:
    """Whether something is there: an error, or a label."""

    __slots__ = ("open",)

    def __init__(self, opened: bool = False) -> None:
        self.open = opened


class Part(NamedTuple):
    """Calls that are made if a gate is open."""

    gate: Gate
    calls: list[Call]


class Label(NamedTuple):
    """The target of the frame that an output layer is nudged for.

    Attributes:
        gate: whether there is one.
        target: shape (B, ...).
        weight: 1 for every sample that has a label and 0 for others, shape (B, 1, ...).
    """

    gate: Gate
    target: Tensor
    weight: Tensor


class Memory:
    """What a stream's dyads remember: one tensor for a register, a row for each slot of its delay line.

    Args:
        shapes: of one sample of z_0 .. z_L.
        samples: B.
        slots: R, the length of the delay lines.
        like: a tensor of the type and on the device of the states.
    """

    def __init__(self, shapes: Sequence[Shape], samples: int, slots: int, like: Tensor) -> None:
        def zeros(shape: Shape, *rows: int) -> Tensor:
            return torch.zeros(*rows, samples, *shape, dtype=like.dtype, device=like.device)

        self.means = [zeros(shape, slots) for shape in shapes]
        self.drives = [zeros(shape, slots) for shape in shapes[1:]]
        self.differences = [zeros(shape) for shape in shapes[1:]]
        self.feedbacks = [zeros(shape) for shape in shapes[1:]]
        self.erring = [Gate() for _ in shapes[1:]]  # which layers have a difference

    def state_dict(self) -> dict[str, Any]:
        """All that the next tick reads."""
        kept = {name: [each.clone() for each in getattr(self, name)] for name in _KEPT}
        return {**kept, "erring": [gate.open for gate in self.erring]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back; it has been checked. What has been widened since is zero at its end."""
        for name in _KEPT:
            for each, kept in zip(getattr(self, name), state[name], strict=True):
                each[..., : kept.shape[-1]].copy_(kept)
        for gate, opened in zip(self.erring, state["erring"], strict=True):
            gate.open = opened


_KEPT = ("means", "drives", "differences")


class Circuit:
    """The dyads of a chain, and what happens in one tick of a stream.

    Args:
        net: the chain.
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
        self._lags, self._forward, self._learns = (0, *lags), forward, learns
        depth = net.wiring.depth
        self._updates = [Update(update.layers) for update in updates]
        self.slots = lags[0] + 1
        self._seen_at = _seen_at(updates, depth)
        self._within = forward and not self._seen_at[-1]  # an error goes down in the tick that it is made in
        self.memory = Memory(shapes, samples, self.slots, like)
        backs = arrivals(updates, depth)
        target, rows = self.memory.differences[-1], self.memory.differences[-1].new_ones
        self.labels = {
            back + lags[-1]: Label(Gate(), torch.zeros_like(target), rows(samples, *(1 for _ in shapes[-1])))
            for back in backs.values()
        }
        self._nudged_for = {number: self.labels[back + lags[-1]] for number, back in backs.items()}
        self._always = Gate(True)
        self._fed = [Gate() for _ in range(depth + 1)]
        self._rest = [Gate() for _ in range(depth + 1)]
        self._neurons = [self._slot(slot) for slot in range(self.slots)]
        self._frames = list(self.memory.means[0])
        self._links = [self._linked(slot) for slot in range(self.slots)]
        self.fixed = all(self._fixed(link) for link in self._links[0])
        for link in (link for links in self._links for link in links):
            link.fresh = forward and not self._fixed(link)  # no mean is written to between
        self._ticks = [self._bound(slot) for slot in range(self.slots)]

    def _slot(self, slot: int) -> list[Neurons]:
        """All layers as they are at the ticks of one slot."""
        memory, layers = self.memory, []
        for k, mean in enumerate(memory.means):
            neurons = Neurons(k, self._net.stack[k - 1].potential if k else None)
            neurons.mean = mean[slot]
            if k:
                neurons.total, neurons.pull = memory.drives[k - 1][slot], memory.feedbacks[k - 1]
                neurons.difference = neurons.delta = memory.differences[k - 1]
            layers.append(neurons)
        return layers

    def _linked(self, slot: int) -> list[Link]:
        """The links that see at the ticks of one slot: what is below as it was when the same frame was there."""
        here, at = self._neurons[slot], self._seen_at
        return [
            Link(synapse, self._neurons[(slot - at[e + 1] + at[e]) % self.slots][e], here[e + 1])
            for e, synapse in enumerate(self._net.synapses)
        ]

    def enter(self, tick: int, x: Tensor | None) -> None:
        """What comes in at a tick; what was there before if nothing does."""
        here, before = self._frames[tick % self.slots], self._frames[tick % self.slots - 1]
        here.copy_(before if x is None else x)

    def run(self, tick: int) -> None:
        """Do a tick: update, and learn."""
        if self._within:
            for gate in self.memory.erring:
                gate.open = False
        for gate, calls in self._ticks[tick % self.slots]:
            if gate.open:
                for call in calls:
                    call()

    def output(self, tick: int) -> Tensor:
        """What the output layer says of the drive that it has got at a tick, in memory of its own."""
        n = self._neurons[tick % self.slots][-1]
        assert n.potential is not None
        assert n.total is not None
        return n.potential.over(n.total.clone())

    def see(self) -> None:
        """See every kept mean anew, after they have been taken back."""
        for links in self._links:
            for link in links:
                link.see()

    def _bound(self, slot: int) -> list[Part]:
        """The parts of the ticks of one slot."""
        planner = Planner(self._wiring, [synapse.linear for synapse in self._net.synapses], different=self._all)
        parts: list[Part] = []
        for number, step in enumerate(planner.plan(self._updates, learn=True), -1):  # the first has no update
            latched = False
            for instruction in listed(step, self._wiring):
                if instruction.do is Do.UPDATE and not latched:
                    latched = True
                    fed = [block.layer for block in step.blocks if block.layer < self._wiring.depth]
                    parts.append(Part(self._always, [partial(self._latch, k) for k in fed]))
                parts += self._parts(instruction, slot, self._nudged_for.get(number))
        return _merged(parts)

    @property
    def _all(self) -> list[bool]:
        """Every layer may have a difference; gates say whether it has."""
        return [True] * (self._wiring.depth + 1)

    def _latch(self, k: int) -> None:
        """Remember whether anything comes down to a layer before the one above is updated."""
        fed = self.memory.erring[k].open
        self._fed[k].open, self._rest[k].open = fed, not fed

    def _parts(self, instruction: Instruction, slot: int, label: Label | None) -> list[Part]:
        """What does an instruction at the ticks of a slot."""
        number, erring = instruction.number, self.memory.erring
        match instruction.do:
            case Do.SEE:
                link = self._links[slot][number]
                return [] if self._fixed(link) else [Part(self._always, [link.see])]
            case Do.DRIVE:
                return [Part(self._always, [self._driving(self._links[slot][number])])]
            case Do.SEND:
                ago = self._lags[number] + self._seen_at[number] - self._seen_at[number + 1]
                seen = self._links[(slot - ago) % self.slots][number]
                return [Part(erring[number], [self._sending(seen)])]
            case Do.UPDATE if instruction.nudged:
                assert label is not None
                return self._updating_output(slot, label)
            case Do.UPDATE:
                return self._updating(number, slot)
            case Do.LEARN:
                link = self._links[(slot - self._lags[number + 1]) % self.slots][number]
                return [Part(erring[number], [self._learns(link)])]
            case _:  # in a chain nothing is summed; a link's step scales what it learns
                return []

    def _fixed(self, link: Link) -> bool:
        """Whether a link has calls that read and write given memory, so that there is nothing to see anew."""
        assert link.above.total is not None
        assert link.below.mean is not None
        return link.synapse.driving(link.below.mean, link.above.total) is not None

    def _driving(self, link: Link) -> Call:
        z, total = link.below.mean, link.above.total
        assert z is not None
        assert total is not None

        def drive() -> None:
            link.drive()
            assert link.driven is not None
            total.copy_(link.driven)

        return link.synapse.driving(z, total) or drive

    def _sending(self, link: Link) -> Call:
        delta, pull = link.above.difference, link.below.pull
        assert delta is not None
        assert pull is not None

        def send() -> None:
            link.send()
            assert link.sent is not None
            pull.copy_(link.sent)

        return (link.synapse.sending(delta, pull) if self._fixed(link) else None) or send

    def _updating(self, k: int, slot: int) -> list[Part]:
        """The update of a hidden layer: z^± = f(a ± {α, ᾱ} r d), or f(a) where nothing comes down."""
        n, memory = self._neurons[slot][k], self.memory
        f, a, d, mean, difference = n.potential, n.total, n.pull, n.mean, n.difference
        assert f is not None
        assert a is not None
        assert d is not None
        assert mean is not None
        assert difference is not None
        own = self._neurons[(slot - self._lags[k]) % self.slots][k].total
        assert own is not None
        up, down = self._nudge.steps(self._wiring, k)
        share, erring = self._nudge.share, memory.erring[k - 1]
        exact = torch.finfo(a.dtype).bits >= 32 and not suits_blocks(a)
        update = partial(f.dyad if exact else partial(dyad, f), d=d, up=up, down=down, share=share)

        def rest() -> None:
            z = f.over(mean.copy_(a))
            if z is not mean:
                mean.copy_(z)

        def err() -> None:
            difference.copy_(update(own)[1])

        def nudged() -> None:
            z, apart = update(a)
            mean.copy_(z)
            difference.copy_(apart)

        come, gone = partial(setattr, erring, "open", True), partial(setattr, erring, "open", False)
        if self._forward:
            parts = [Part(self._always, [rest]), Part(self._fed[k], [err, come]), Part(self._rest[k], [gone])]
        else:
            parts = [Part(self._fed[k], [nudged, come]), Part(self._rest[k], [rest, gone])]
        return parts

    def _updating_output(self, slot: int, label: Label) -> list[Part]:
        """The update of the output layer, for a frame that has a label by now."""
        depth = self._wiring.depth
        n = self._neurons[(slot - self._lags[depth]) % self.slots][depth]
        f, a, difference, erring = n.potential, n.total, n.difference, self.memory.erring[depth - 1]
        assert f is not None
        assert a is not None
        assert difference is not None
        up, down = self._nudge.at(depth)
        loss, (_, target, weight) = self._loss, label

        def nudged() -> None:
            plus, minus = loss.output_step(f, a, target, up, down)
            torch.sub(plus, minus, out=difference)
            erring.open = True

        some = [] if len(target) == 1 else [partial(difference.mul_, weight)]
        gone = partial(setattr, erring, "open", False)
        return [Part(self._always, [gone]), Part(label.gate, [nudged, *some])]


def arrivals(updates: Sequence[Update], depth: int) -> dict[int, int]:
    """How many ticks ago the frame came in that is at the output, by the number of each update of that layer.

    Example:
        >>> arrivals([Update((1, 2, 3))], 3), arrivals([Update((1,)), Update((2,)), Update((3,))], 3)
        ({0: 2}, {2: 0})
    """
    return {
        number: seen[depth] for number, seen in _frames_seen(updates, depth) if depth in updates[number].layers
    }


def _seen_at(updates: Sequence[Update], depth: int) -> list[int]:
    """How many ticks ago the frame came in that z_0 .. z_L have at the end of a tick."""
    _, seen = _frames_seen(updates, depth)[-1]
    return [seen[k] for k in range(depth + 1)]


def _frames_seen(updates: Sequence[Update], depth: int) -> list[tuple[int, dict[int, int]]]:
    """For every update of a tick its number, and how many ticks ago each layer's frame came in after it."""
    frame = dict.fromkeys(range(depth + 1), 0)
    seen: list[tuple[int, dict[int, int]]] = []
    for tick in range(depth + 1):  # after so many there is a frame everywhere
        frame[0], seen = tick, []
        for number, update in enumerate(updates):
            before = dict(frame)
            frame |= {k: before[k - 1] for k in update.layers}
            seen.append((number, {k: tick - each for k, each in frame.items()}))
    return seen


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Neighbours with the same gate as one."""
    merged: list[Part] = []
    for gate, calls in parts:
        if merged and merged[-1].gate is gate:
            merged[-1].calls.extend(calls)
        elif calls:
            merged.append(Part(gate, list(calls)))
    return merged
