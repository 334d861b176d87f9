"""Workers in one process, on a virtual clock: messages are lost, late, doubled and out of order as one likes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dualprop.arguments import Fraction, NotNegative, Positive, Seed, Several, checked
from dualprop.errors import DualpropError
from dualprop.training.workers.message import Kind, Message
from dualprop.training.workers.worker import Worker


@checked
@dataclass(frozen=True)
class Simulated:
    """Carries messages within one process, on a virtual clock; the same every time.

    Args:
        seed: of what is drawn.
        loss: the part of the messages that is lost, in [0, 1).
        delay: seconds that each takes.
        reorder: the part that is late, by up to `late` seconds more, so that others overtake it.
        duplicate: the part that comes twice, the second time late.
        late: see `reorder`.
        speed: multiply-adds that a worker makes in a second.
        slow: how many times as long each worker takes, from the input up; none: all take once as long.

    Example:
        >>> Simulated(loss=0.2).arrivals(torch.Generator().manual_seed(0))
        [0.0]
    """

    seed: Seed = 0
    loss: Fraction = 0.0
    delay: NotNegative = 0.0
    reorder: Fraction = 0.0
    duplicate: Fraction = 0.0
    late: NotNegative = 0.02
    speed: Positive = 2e10
    slow: Several[Positive] = ()

    def check(self, workers: int, address: str | None = None) -> None:
        """Refuse factors that are not one for each worker.

        Raises:
            DualpropError: naming both numbers.
        """
        if self.slow and len(self.slow) != workers:
            raise DualpropError(f"slow={self.slow}: must have {workers} factors, one for each worker")

    def arrivals(self, generator: torch.Generator) -> list[float]:
        """After how many seconds a message comes, once for each time that it does."""
        lost, late, twice, by, again = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        if lost < self.loss:
            return []
        first = self.delay + self.late * by * (late < self.reorder)
        return [first, first + self.late * again] if twice < self.duplicate else [first]


class Simulation:
    """Workers that take as long as their products would, and messages on their way.

    Args:
        workers: from the input up.
        carrier: what becomes of messages.
        work: multiply-adds of one sample in each worker, on the way up; learning takes as many, and the way down
            but for the first layer of the net.

    Attributes:
        now: the virtual time, in seconds.
        busy: for how many seconds each worker has worked.
        lost: how many of each worker's messages were.
    """

    def __init__(self, workers: Sequence[Worker], carrier: Simulated, work: Sequence[float]) -> None:
        self.workers, self._carrier, self._work = list(workers), carrier, list(work)
        self._generator = torch.Generator().manual_seed(carrier.seed)
        self.now, self.lost = 0.0, [0] * len(workers)
        self.busy = [0.0] * len(workers)
        self._free = [0.0] * len(workers)
        self._inbox: list[list[Message]] = [[] for _ in workers]
        self._events: list[tuple[float, int, int, Message | None]] = []  # when, in order, whose, what comes
        self._wakes = [math.inf] * len(workers)
        self._count = self._coming = 0

    def run(self, until: int, total: int) -> Iterator[None]:
        """Go on until all batches before `until` have been begun; yields after each that a worker has acted.

        Args:
            until: the number of the first batch that is not to begin yet.
            total: the batches of the whole run; where it ends with them, all come back or are given up, and what
                is open then counts as skipped.
        """
        first = self.workers[0]
        for worker in self.workers:
            worker.until = total
        self._wake(0, self.now)
        while self._events:
            if until <= first.next and until < total:
                return
            if first.done and not self._coming and not any(self._inbox):
                break
            when, _, number, message = heapq.heappop(self._events)
            self.now = max(self.now, when)
            if message is not None:
                self._coming -= 1
                self._inbox[number].append(message)
                self._wake(number, self.now)
            elif when == self._wakes[number]:
                self._wakes[number] = math.inf
                if first.done and not self.workers[number].way.one_by_one and not self._inbox[number]:
                    continue
                self._act(number)
                yield
        for worker in self.workers:
            worker.finish()

    def free_from(self, now: float) -> None:
        """All workers are free from a time on."""
        self._free = [now] * len(self.workers)

    def _wake(self, number: int, when: float) -> None:
        """A worker is to act then, or when it is free."""
        when = max(when, self._free[number])
        if when < self._wakes[number]:
            self._wakes[number] = when
            self._push(when, number, None)

    def _push(self, when: float, number: int, message: Message | None) -> None:
        heapq.heappush(self._events, (when, self._count, number, message))
        self._count += 1

    def _act(self, number: int) -> None:
        worker, inbox = self.workers[number], self._inbox[number]
        if worker.way.one_by_one and inbox:  # what comes down first
            at = min(range(len(inbox)), key=lambda i: inbox[i].kind)
            messages = [inbox.pop(at)]
        else:
            messages, inbox[:] = list(inbox), []
        before = worker.effort
        posts = worker.react(messages, self.now)
        seconds = self._cost(number, worker, worker.effort - before)
        worker.took(seconds)
        self.busy[number] += seconds
        self._free[number] = free = self.now + seconds
        for post in posts:
            to = number + 1 if post.kind is Kind.MEAN else number - 1
            arrivals = self._carrier.arrivals(self._generator)
            self.lost[number] += not arrivals
            for after in arrivals:
                self._coming += 1
                self._push(free + after, to, post)
        if inbox:
            self._wake(number, free)
        elif math.isfinite(worker.due):
            self._wake(number, max(free, worker.due))

    def _cost(self, number: int, worker: Worker, effort: float) -> float:
        """Seconds that a worker's products have taken."""
        slow = self._carrier.slow[number] if self._carrier.slow else 1.0
        return self._work[number] * worker.part.batch_size * effort / self._carrier.speed * slow
