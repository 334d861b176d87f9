"""All workers of a run, as the driver sees them; and those of one process, on the virtual clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.training.workers.grouping import Group
from dualprop.training.workers.simulated import Simulated, Simulation
from dualprop.training.workers.worker import Worker


@dataclass
class Line:
    """What is known of a worker.

    Attributes:
        name: its layers in words.
        counts: what it has done and has not, since the beginning of the run.
        speed: updates in a second, of late.
        age: seconds since its last message came from a neighbour.
        dropped: of its messages those that there was no room for, or that are known to be lost.
        share: the part of a batch that it takes on: less than 1 where it is slow.
        busy: the part of its time in which it has computed.
        restarts: how often it has been started again.
        state: in a word.
    """

    name: str
    counts: dict[str, float] = field(default_factory=dict)
    speed: float = 0.0
    age: float = 0.0
    dropped: int = 0
    share: float = 1.0
    busy: float = 0.0
    restarts: int = 0
    state: str = "works"

    @property
    def staleness(self) -> float:
        """Updates between the way up and the way down of a batch, on the average."""
        return self.counts.get("stale", 0) / max(self.counts.get("updates", 0), 1)


JUDGED = ("samples", "loss", "correct", "top5")


class Crew(ABC):
    """Workers that train, each at its own pace; a context, after which none is left.

    Attributes:
        groups: the layers of each.
        lines: what is known of each.
        batch: the number of the batch that the first one begins next.
        total: the number of batches in the whole run.
        begun: whether all of them have answered.
    """

    groups: Sequence[Group]
    lines: list[Line]
    batch = 0
    total = 0
    begun = False

    @abstractmethod
    def run(self, until: int) -> Iterator[dict[str, float]]:
        """Train until all batches before `until` have been begun, and if these are all, are done.

        Yields what the output has judged since the last time.
        """

    @abstractmethod
    def give(self, net: Net) -> None:
        """Give a net the weights that the workers have now."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, before the workers begin."""

    @property
    def time(self) -> float | None:
        """The virtual time, if there is one."""
        return None

    @property
    def lost(self) -> int:
        """Messages that are known to be lost."""
        return 0

    def __enter__(self) -> Self:
        """All have answered."""
        self.begun = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """None is left."""


class SimulatedCrew(Crew):
    """Workers in this process, on the layers of the net itself.

    Args:
        workers: from the input up.
        carrier: what becomes of messages.
        work: see `Simulation`.
    """

    def __init__(self, workers: Sequence[Worker], carrier: Simulated, work: Sequence[float]) -> None:
        self.workers = list(workers)
        self.groups = [(worker.part.first, worker.part.last) for worker in workers]
        self.lines = [Line(worker.name) for worker in workers]
        self.simulation = Simulation(workers, carrier, work)

    def run(self, until: int) -> Iterator[dict[str, float]]:
        """See `Crew.run`; yields whenever a batch has begun."""
        first, last = self.workers[0], self.workers[-1]
        for _ in self.simulation.run(until, self.total):
            if first.next > self.batch:
                self.batch = first.next
                self._tell()
                yield self._judged(last)
        self.batch = first.next
        self._tell()
        if last.counts.samples:
            yield self._judged(last)

    @staticmethod
    def _judged(last: Worker) -> dict[str, float]:
        told = last.told()
        return {name: told[name] for name in JUDGED}

    def _tell(self) -> None:
        now = max(self.simulation.now, 1e-9)
        for line, worker in zip(self.lines, self.workers, strict=True):
            line.counts = vars(worker.counts).copy()
            line.speed = worker.counts.updates / now
            line.share = worker.share
        for line, busy, lost in zip(self.lines, self.simulation.busy, self.simulation.lost, strict=True):
            line.busy, line.dropped = busy / now, lost

    @property
    def time(self) -> float:
        """The virtual time."""
        return self.simulation.now

    @property
    def lost(self) -> int:
        """Messages that were lost."""
        return sum(self.simulation.lost)

    def give(self, net: Net) -> None:
        """The net has them."""

    def state_dict(self) -> dict[str, Any]:
        """Of every layer what it needs; batches that are in flight are lost."""
        layers = {}
        for worker in self.workers:
            for k in range(worker.part.first, worker.part.last + 1):
                layers[str(k)] = worker.state_dict(k)
        return {"layers": layers, "batch": self.workers[0].next, "now": self.simulation.now}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        if set(check("workers", state, Mapping[str, Any])) != {"layers", "batch", "now"}:
            raise DualpropError(f"workers: holds {sorted(state)}, but it must hold layers, batch, now")
        for worker in self.workers:
            for k in range(worker.part.first, worker.part.last + 1):
                worker.load_state_dict(k, state["layers"][str(k)])
        self.batch = self.workers[0].next = int(state["batch"])
        self.simulation.now = float(state["now"])
        self.simulation.free_from(self.simulation.now)
