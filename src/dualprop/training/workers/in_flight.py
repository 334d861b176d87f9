"""Batches follow each other without waiting; a difference meets the mean of its own batch, or nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualprop.arguments import Count, checked
from dualprop.nets.synapses import one_step
from dualprop.training.workers.message import Kind, Message
from dualprop.training.workers.segment import Segment
from dualprop.training.workers.share import Share
from dualprop.training.workers.worker import Pace, Worker


@checked
@dataclass(frozen=True)
class InFlight:
    """Several batches are on their way at once, each with its number.

    Mean z̄_k = f(a_k) goes up. Where a layer's feedback d comes down, the layer takes its difference
    f(a + α r d) - f(a - ᾱ r d) at the drive a of the same batch, which waits for it in a ring, and its edges learn
    with the mean below of that batch: what reverse mode with finite differences gives (`dualprop.convert`), but
    that weights have moved meanwhile. A mean or a feedback that is lost, late or doubled is an update skipped, and
    counted; nothing else.

    The first layer begins a batch whenever fewer than `batches` are on their way. One that comes back lets all
    before it count as lost; where none comes back for four deviations above the usual time, all are.

    A worker that is slow takes on the first samples of a batch alone, and learns from some batches only: it slows
    its own learning, and its neighbours make as many updates as before, from fewer samples each.

    Args:
        batches: on their way at once, at least 1. A ring has room for twice as many.

    References:
        Kosson et al., *Pipelined Backpropagation at Scale* (arXiv 2003.11666); Rivaud et al., *PETRA* (arXiv
        2406.02052); Ryabinin et al., *SWARM Parallelism* (arXiv 2301.11913); Huo et al., *Decoupled Parallel
        Backpropagation* (arXiv 1804.10574): pipelines of back-propagation, whose derivative stands where the
        finite difference does here.
    """

    batches: Count = 4

    @property
    def one_by_one(self) -> bool:
        """It acts on every message by itself."""
        return True

    def begun(self, worker: Worker) -> Pace:
        """A worker that works so."""
        return _Flight(worker, self.batches)


class _Flown(Segment):
    """A batch in the ring.

    Attributes:
        updates: the worker's, when it went up.
        size: its first samples that have come so far, up or down.
    """

    __slots__ = ("size", "updates")

    size: int
    updates: int


class _Flight:
    """A worker's ring, and at the first layer what is on its way."""

    def __init__(self, worker: Worker, batches: int) -> None:
        self._worker, self._part, self._counts = worker, worker.part, worker.counts
        self._batches, self._room = batches, 2 * batches
        self._ring: dict[int, _Flown | None] = {}  # None: it has been learnt from
        self._spare: list[_Flown] = []
        self._floor = -1  # the largest number that has left the ring
        self._away: dict[int, float] = {}  # when each that is on its way has gone up
        self._clock, self.due = _Patience(), math.inf
        self._share = Share(worker.part.lead)
        self.next = self.until = 0

    @property
    def done(self) -> bool:
        return self.next >= self.until and not self._away

    def react(self, messages: Sequence[Message], now: float) -> list[Message]:
        posts: list[Message] = []
        for message in sorted(messages, key=lambda message: message.kind):  # what comes down first
            posts += self._mean(message) if message.kind is Kind.MEAN else self._feedback(message, now)
        if self._part.takes_inputs:
            posts += self._begin(now)
        return posts

    def took(self, seconds: float) -> None:
        self._share.spend(seconds)

    @property
    def share(self) -> float:
        return self._share.part

    def finish(self) -> None:
        for flown in self._ring.values():
            self._counts.skipped += flown is not None
        self._ring.clear()
        self._away.clear()

    def _begin(self, now: float) -> list[Message]:
        """The next batch, if fewer are on their way than may be."""
        if self._away and now >= self._clock.deadline(min(self._away.values())):
            self._clock.double()
            self._away.clear()
        posts: list[Message] = []
        if len(self._away) < self._batches and self.next < self.until:
            self._away[self.next] = now
            posts = self._up(self.next, self._part.pairs.x(self.next))
            self.next += 1
        more = len(self._away) < self._batches and self.next < self.until
        self.due = now if more else self._clock.deadline(min(self._away.values())) if self._away else math.inf
        return posts

    def _back(self, batch: int, now: float) -> None:
        """A batch has come back to the first layer."""
        if batch in self._away:
            self._clock.see(now - self._away[batch])
            self._away = {later: begun for later, begun in self._away.items() if later > batch}

    def _mean(self, message: Message) -> list[Message]:
        batch, part = message.batch, self._part
        if part.takes_inputs or not part.fits(message, part.first - 1):
            self._counts.refused += 1
        elif batch in self._ring:
            self._counts.doubled += 1
        elif batch <= self._floor or (len(self._ring) >= self._room and batch < min(self._ring)):
            self._counts.late += 1
        else:
            self._share.hear(Kind.MEAN, message.part)
            self.next = max(self.next, batch + 1)
            return self._up(batch, message.tensor)
        return []

    def _up(self, batch: int, mean: Tensor) -> list[Message]:
        """A batch goes up through the layers; at the output it turns."""
        part = self._part
        mean = mean[: self._share.rows(len(mean))]
        taken = len(mean) / part.size(batch)
        self._share.begin(taken)
        self._worker.effort += len(mean) / part.batch_size
        self._counts.seen += 1
        flown = self._spare.pop() if self._spare else _Flown(part.layers, part.first)
        flown.updates, flown.size, flown.below.mean = self._counts.updates, len(mean), mean
        self._keep(batch, flown)
        with one_step(self._worker.synapses):
            for link, n in zip(flown.links, flown.neurons, strict=True):
                link.see()
                link.drive()
                n.gather()
                assert n.potential is not None
                assert n.total is not None
                n.mean = n.potential(n.total)
            if not part.takes_targets:
                top = flown.neurons[-1].mean
                assert top is not None
                return [Message(Kind.MEAN, batch, part.last, top, self._share.say(Kind.MEAN))]
            output, y = flown.neurons[-1], part.targets(batch)[: flown.size]
            output.output = output.mean
            self._worker.judge(output.said, y, batch)
            output.difference = part.difference.output(output, y)
            posts = self._down(batch, flown)
        self._learn(batch, flown)
        return posts

    def _feedback(self, message: Message, now: float) -> list[Message]:
        batch, part = message.batch, self._part
        if part.takes_targets or not part.fits(message, part.last):
            self._counts.refused += 1
            return []
        flown = self._ring.get(batch)
        if flown is None:
            self._counts.doubled += batch in self._ring
            self._counts.late += batch not in self._ring
            return []
        if len(message.tensor) > flown.size:
            self._counts.refused += 1
            return []
        self._share.hear(Kind.FEEDBACK, message.part)
        top = flown.neurons[-1]
        top.pull, flown.size = _filled(message.tensor, flown.size), len(message.tensor)
        with one_step(self._worker.synapses):
            top.difference = part.difference.hidden(top)
            posts = self._down(batch, flown)
        self._learn(batch, flown)
        if part.takes_inputs:
            self._back(batch, now)
        return posts

    def _down(self, batch: int, flown: _Flown) -> list[Message]:
        """What the difference of the last layer sends down through the others, and below them all."""
        part = self._part
        for link in reversed(flown.links):
            below = link.below
            if below.number > 0:
                link.send()
            if below is not flown.below:
                below.collect((link,))
                below.difference = part.difference.hidden(below)
        sent = flown.links[0].sent
        if part.takes_inputs or sent is None:
            return []
        sent = sent[: flown.size]
        return [Message(Kind.FEEDBACK, batch, part.first - 1, sent, self._share.say(Kind.FEEDBACK))]

    def _learn(self, batch: int, flown: _Flown) -> None:
        """All edges learn, once what they send down has been made with the weights before; if it is time to."""
        learns = self._share.learns()
        made = flown.neurons[0].total
        assert made is not None
        self._worker.effort += (self._worker.down + learns) * len(made) / self._part.batch_size
        self._counts.skipped += not learns
        if learns:
            for n in flown.neurons:
                assert n.difference is not None
                n.delta = n.difference.mul(-1 / (self._part.difference.beta[n.number - 1] * flown.size))
            self._counts.stale += self._counts.updates - flown.updates
            self._worker.learn(flown.links, batch)
        self._ring[batch] = None
        self._spare.append(flown)
        if self._part.takes_inputs and self._part.takes_targets:
            self._away.pop(batch, None)

    def _keep(self, batch: int, flown: _Flown) -> None:
        """A place in the ring; where there is none, the oldest batch goes."""
        self._ring[batch] = flown
        if len(self._ring) > self._room:
            oldest = min(self._ring)
            gone = self._ring.pop(oldest)
            self._floor = max(self._floor, oldest)
            self._counts.skipped += gone is not None
            if gone is not None:
                self._spare.append(gone)


class _Patience:
    """How long to wait for a batch to come back: as Jacobson and Karels have it for segments of TCP."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation, self._factor = 0.0, 1.0

    def see(self, seconds: float) -> None:
        """One has come back after so long."""
        self._factor = 1.0
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(seconds - self._mean) - self._deviation) / 4
            self._mean += (seconds - self._mean) / 8

    def double(self) -> None:
        """None has come back in time."""
        self._factor = min(2 * self._factor, 4.0)

    def deadline(self, begun: float) -> float:
        """When a batch that has gone up then counts as lost."""
        usual = 1.0 if self._mean is None else self._mean + 4 * self._deviation
        return begun + self._factor * max(usual, 1e-3)


def _filled(feedback: Tensor, size: int) -> Tensor:
    """Feedback to so many samples; to those that somebody above has not taken on it is zero."""
    if len(feedback) == size:
        return feedback
    return torch.cat([feedback, feedback.new_zeros(size - len(feedback), *feedback.shape[1:])])
