"""An input stands for a while, and the states relax by whatever arrives: the paper's random order, for real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dualprop.arguments import Count, Positive, checked
from dualprop.engines.dyads.blocks import Batch, Blocks, Call, Task
from dualprop.engines.dyads.program import Do, Instruction, Register
from dualprop.nets.synapses import one_step
from dualprop.nets.wiring import Wiring
from dualprop.training.workers.message import Kind, Message
from dualprop.training.workers.segment import Segment
from dualprop.training.workers.worker import Pace, Worker


@checked
@dataclass(frozen=True)
class Held:
    """A batch stands until the first layer has learnt from it; of all that arrives of it the latest counts.

    Whenever something has come, a worker updates its layers up and down, z_k^± = f(a_k ± {α, ᾱ} r d_k), and tells
    its neighbours the new mean and the new feedback. It does so by its own clock, too, so that what was lost is
    said again. Once both its ends are known, and after so many updates, its edges learn, once a batch.

    Args:
        updates: those of each layer, at least 1, from when both its ends are known until it learns.
        beat: seconds after which a worker goes on by its own clock.
        patience: seconds after which the first layer gives a batch up that it has not learnt from.
    """

    updates: Count = 1
    beat: Positive = 0.02
    patience: Positive = 5.0

    @property
    def one_by_one(self) -> bool:
        """It acts on the latest of all that has come."""
        return False

    def begun(self, worker: Worker) -> Pace:
        """A worker that works so."""
        return Holding(worker, self)


class Holding:
    """A worker's states on the batch that stands.

    Args:
        worker: whose layers they are of.
        way: how long it waits for what.

    Attributes:
        batch: the number of the batch that stands; -1 before the first.
        next: the number of the one after it.
        until: the number of the first batch that is not to begin.
        due: when it goes on by its own clock.
    """

    def __init__(self, worker: Worker, way: Held) -> None:
        part = worker.part
        self._worker, self._part, self._counts, self._way = worker, part, worker.counts, way
        wiring = Wiring.chain(part.depth)
        self._blocks = Blocks(wiring, part.nudge, 0.0)
        self._blocks.zeros = self._zeros
        self._segment = Segment(part.layers, part.first)
        self._resting, self._moved, self._scaling = dict[int, Call](), dict[int, Call](), dict[int, Call]()
        for n in self._segment.neurons:
            k = n.number
            top = k == part.depth
            unread = (Register("states", k),)
            self._resting[k] = self._blocks.updating(n, Instruction(Do.UPDATE, k, frees=unread))
            self._moved[k] = self._blocks.updating(
                n, Instruction(Do.UPDATE, k, fed=not top, nudged=top, frees=unread)
            )
            self._scaling[k] = self._blocks.scaling(n, spend=False)
        self.batch, self.next, self.until, self.due = -1, 0, 0, math.inf
        self._begun = -math.inf
        self._heard, self._ready, self._learnt = False, 0, True

    @property
    def done(self) -> bool:
        """See `Worker.done`."""
        return self._learnt and self.next >= self.until

    def begin(self, batch: int, now: float = 0.0) -> None:
        """A batch stands from now on, all states at zero."""
        part, size = self._part, self._part.size(batch)
        self._counts.skipped += not self._learnt
        self._counts.seen += 1
        self._worker.effort += size / part.batch_size
        self.batch, self.next, self._begun = batch, max(self.next, batch + 1), now
        self._heard, self._ready, self._learnt = part.takes_inputs, 0, False
        segment = self._segment
        if part.takes_inputs:
            segment.below.mean = part.pairs.x(batch)
        else:
            segment.below.mean = part.zeros(size, part.first - 1)
        for n in segment.neurons:
            n.mean = n.difference = n.pull = n.total = n.output = None
        for link in segment.links:
            link.operand = link.linearisation = link.driven = link.sent = None
        tasks = {part.depth: Task(part.loss, part.targets(batch))} if part.takes_targets else {}
        self._blocks.begin(Batch([segment.below.mean], tasks))

    def react(self, messages: Sequence[Message], now: float) -> list[Message]:
        """See `Worker.react`."""
        heard = [message.kind for message in messages if self._hear(message, now)]
        begun = self._part.takes_inputs and self._go_on(now)
        asked = Kind.MEAN in heard or (bool(heard) and not self._learnt)  # what was learnt waits for the clock
        if self.batch < 0 or not (begun or asked or now >= self.due):
            return []
        self.due = now + self._way.beat
        with one_step(self._worker.synapses):
            numbers = [n.number for n in self._segment.neurons]
            for k in (*numbers, *reversed(numbers[:-1])):
                self.update(k)
            posts = [*self.mean(), *self.feedback()]
        known = self._heard and (self._part.takes_targets or self._segment.neurons[-1].pull is not None)
        self._ready += known
        if not self._learnt and self._ready >= self._way.updates:
            self.learn()
        return posts

    def finish(self) -> None:
        """See `Worker.finish`."""
        self._counts.skipped += not self._learnt
        self._learnt = True

    def took(self, seconds: float) -> None:
        """How long a batch stands is for the first layer to say, not for who is slow."""

    @property
    def share(self) -> float:
        """All of a batch stands."""
        return 1.0

    def hear(self, message: Message) -> None:
        """What a neighbour says of the batch that stands."""
        segment = self._segment
        if message.kind is Kind.MEAN:
            segment.below.mean, self._heard = message.tensor, True
            segment.links[0].operand = segment.links[0].sent = None
        else:
            segment.neurons[-1].pull = message.tensor

    def update(self, k: int, *, nudged: bool = True) -> None:
        """The block update of a layer, by what it knows of its neighbours.

        Args:
            k: the layer.
            nudged: of the output layer: whether the loss acts on it.
        """
        at = k - self._part.first
        segment = self._segment
        n, link = segment.neurons[at], segment.links[at]
        if link.operand is None:
            self._see(at)
            link.drive()
            n.gather()
        if n is not segment.neurons[-1]:
            n.pull = self._sent(at + 1)
        if n.number == self._part.depth:
            (self._moved if nudged else self._resting)[k]()
        else:
            (self._resting if n.pull is None else self._moved)[k]()
        link.sent = None
        if at + 1 < len(segment.links):
            segment.links[at + 1].operand = segment.links[at + 1].sent = None

    def mean(self) -> list[Message]:
        """Its last layer's mean, for the layer above."""
        mean = self._segment.neurons[-1].mean
        if mean is None or self._part.takes_targets:
            return []
        return [Message(Kind.MEAN, self.batch, self._part.last, mean)]

    def feedback(self) -> list[Message]:
        """What its first layer feeds back, for the layer below."""
        sent = None if self._part.takes_inputs else self._sent(0)
        return [] if sent is None else [Message(Kind.FEEDBACK, self.batch, self._part.first - 1, sent)]

    def learn(self) -> None:
        """All edges learn from the states as they are."""
        part, segment = self._part, self._segment
        for n in segment.neurons:
            self._scaling[n.number]()
        if part.takes_targets:
            output = segment.neurons[-1]
            self._worker.judge(output.said, self._blocks.batch.tasks[part.depth].y, self.batch)
        self._worker.learn(segment.links, self.batch)
        self._worker.effort += (self._worker.down + 1) * part.size(self.batch) / part.batch_size
        self._learnt = True
        for link in segment.links:  # the weights are others
            link.operand = link.sent = None

    def _hear(self, message: Message, now: float) -> bool:
        """Whether a message is of use."""
        part, counts = self._part, self._counts
        mean = message.kind is Kind.MEAN
        below, k = (part.takes_inputs, part.first - 1) if mean else (part.takes_targets, part.last)
        if below or not part.fits(message, k) or len(message.tensor) < part.size(message.batch):
            counts.refused += 1
        elif message.batch < self.batch:
            counts.late += 1
        else:
            if message.batch > self.batch:
                if part.takes_inputs:
                    counts.refused += 1
                    return False
                self.begin(message.batch, now)
            self.hear(message)
            return True
        return False

    def _go_on(self, now: float) -> bool:
        """Begin the next batch where this one has been learnt from or is given up."""
        if self.next < self.until and (self._learnt or now >= self._begun + self._way.patience):
            self.begin(self.next, now)
            return True
        if not self._learnt and self.next >= self.until and now >= self._begun + self._way.patience:
            self.finish()
        return False

    def _see(self, at: int) -> None:
        """The link into a layer sees the mean below, that of a layer that was never updated at zero."""
        link = self._segment.links[at]
        if link.below.mean is None:
            link.below.mean = self._zeros(link.below.number)
        link.see()

    def _sent(self, at: int) -> Tensor | None:
        """What comes down by the link into a layer, if anything does."""
        link = self._segment.links[at]
        if link.above.difference is None:
            return None
        if link.sent is None:
            if link.operand is None:
                self._see(at)
                link.operand = None  # its drive is still to be made anew
            link.send()
        return link.sent

    def _zeros(self, k: int) -> Tensor:
        return self._part.zeros(self._part.size(self.batch), k)
