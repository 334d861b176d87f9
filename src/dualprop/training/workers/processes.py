"""Workers in processes of their own, as the driver sees them: started, told who is who, heard, started anew."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from dualprop.arguments import CountOrZero, check, check_entries
from dualprop.errors import CheckpointError, DivergenceError, DualpropError
from dualprop.nets.net import Net
from dualprop.training.experiment import Experiment
from dualprop.training.resolved import Resolved
from dualprop.training.workers.calls import RayCalls
from dualprop.training.workers.crew import JUDGED, Crew, Line
from dualprop.training.workers.grouping import Group
from dualprop.training.workers.links import Hub
from dualprop.training.workers.message import Kind, Message, check_size
from dualprop.training.workers.parts import part_of
from dualprop.training.workers.placement import Placement
from dualprop.training.workers.process import FOLDER, REPORT_EVERY, snapshot, versions, write_snapshot
from dualprop.training.workers.ways import worded
from dualprop.training.workers.worker import LASTING, Way, Worker
from dualprop.training.workers.zeromq import ZeroMQ

logger = logging.getLogger("dualprop")

FALLS = 20
"""Times that a worker is started again without having made an update, before that is an error."""


class ProcessCrew(Crew):
    """The workers of a run in processes of their own.

    Args:
        experiment: what is trained.
        resolved: every value that is used.
        groups: the layers of each worker.
        way: how they work.
        path: the run folder.
        carrier: how they talk.
        placement: where they are.
        imports: Python files that their processes run first.

    Attributes:
        recoveries: for every restart the worker, the seconds that it took, and the updates that were lost.
    """

    def __init__(
        self,
        experiment: Experiment,
        resolved: Resolved,
        groups: Sequence[Group],
        way: Way,
        path: Path,
        carrier: ZeroMQ | RayCalls,
        placement: Placement,
        imports: Sequence[Path] = (),
    ) -> None:
        self.groups, self._carrier, self._placement, self._path = list(groups), carrier, placement, path
        parts = [part_of(experiment, group, groups) for group in groups]
        workers = [Worker(part, way) for part in parts]  # of whom only names and first states are wanted
        self.lines = [Line(worker.name, state="starts") for worker in workers]
        self._first_states: Callable[[int], dict[str, Any]] = lambda k: next(
            worker for worker, (first, last) in zip(workers, groups, strict=True) if first <= k <= last
        ).state_dict(k)
        self._names = {k: list(layer.state_dict()) for k, layer in enumerate(experiment.trainer.net.stack, 1)}
        check_size(
            carrier.largest, max(math.prod(shape) for shape in parts[0].shapes) * experiment.settings.batch_size
        )
        largest = max((p.numel() for p in experiment.trainer.net.parameters()), default=0)
        check_size(carrier.largest, largest)
        self._order: dict[str, Any] = {
            "settings": experiment.settings.as_dict(),
            "resolved": resolved.as_dict(),
            "way": worded(way),
            "folder": str(path.absolute()),
            "room": 2 * getattr(way, "batches", 1),
            "threads": resolved.threads,
            "snapshot_every": carrier.snapshot_every,
            "count": len(groups),
            "groups": [list(group) for group in groups],
            "imports": [str(file) for file in imports],
        }
        self._told = [dict[str, Any]() for _ in groups]  # the last report of each
        self._endpoints: dict[int, str] = {}
        self._pids: dict[int, int] = {}
        self._heard = [0.0] * len(groups)
        self._fell = [0.0] * len(groups)
        self._falls = [0] * len(groups)
        self._judged = dict.fromkeys(JUDGED, 0.0)
        self._weights: dict[tuple[int, int], torch.Tensor] = {}
        self._saved: dict[int, dict[str, Any]] = {}
        self.recoveries: list[tuple[int, float, int]] = []
        self._asked, self._warned, self._until = 0, False, 0
        self._hub: Hub | None = None

    def __enter__(self) -> Self:
        """All have been started, and have answered."""
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """They are told to stop; then those that are left are killed, and sockets and their folder are gone."""
        try:
            if self._hub is not None:
                for number in range(len(self.groups)):
                    self._say(number, Message.of(Kind.STOP, {}))
        finally:
            self._placement.end(5.0)
            if self._hub is not None:
                self._hub.close()
                self._hub = None

    def _begin(self) -> None:
        self._save_first_states()
        self._hub = hub = self._carrier.hub(self._placement)
        self._order |= hub.order
        for number in range(len(self.groups)):
            self._place(number)
        timeout = self._carrier.timeout
        until = time.monotonic() + timeout
        while any(line.state == "starts" for line in self.lines):
            self._turn(0.1)
            if time.monotonic() > until:
                silent = [line.name for line in self.lines if line.state == "starts"]
                other = "; what came was of another version" if hub.refused else ""
                raise DualpropError(
                    f"timeout={timeout:g}: no answer from the worker of {', '.join(silent)}{other}"
                )
        for number in range(len(self.groups)):
            self._start(number)

    def _place(self, number: int) -> None:
        """Start a worker."""
        assert self._hub is not None
        own = {"number": number, "group": list(self.groups[number]), "listen": self._hub.listen(number)}
        self._placement.start(number, {**self._order, **own})

    def _save_first_states(self) -> None:
        """The layers that no worker has saved yet."""
        (self._path / FOLDER).mkdir(exist_ok=True)
        for first, last in self.groups:
            for k in range(first, last + 1):
                if not snapshot(self._path, k).exists():
                    write_snapshot(self._path, k, self._first_states(k))

    def run(self, until: int) -> Iterator[dict[str, float]]:
        """See `Crew.run`; yields a few times a second."""
        quiet, before = 0, -1.0
        while True:
            self._turn(REPORT_EVERY)
            judged, self._judged = self._judged, dict.fromkeys(JUDGED, 0.0)
            yield judged
            if self.batch < until:
                continue
            if until < self.total:
                return
            updates = sum(line.counts.get("updates", 0) for line in self.lines)
            quiet = quiet + 1 if updates == before and self._told[0].get("done") else 0
            before = updates
            if quiet > 2:
                return

    def _turn(self, seconds: float) -> None:
        """Hear what the workers say, and start those anew that have died."""
        assert self._hub is not None
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for number, message in self._hub.heard(left):
                if 0 <= number < len(self.groups):
                    self._hear(number, message)
        for number in range(len(self.groups)):
            if how := self._placement.dead(number):
                self._fallen(number, how)

    def _hear(self, number: int, message: Message) -> None:
        self._heard[number] = time.monotonic()
        match message.kind:
            case Kind.HELLO:
                self._greet(number, message.words)
            case Kind.REPORT:
                self._note(number, message.words)
            case Kind.WEIGHTS:
                self._weights[message.layer, message.part] = message.tensor
            case Kind.SAVED:
                words = message.words
                if words["error"] and not self._warned:
                    logger.warning("%s; training goes on", words["error"])
                    self._warned = True
                if words["number"] is not None:
                    self._saved[number] = words
            case Kind.FAILED:
                words = message.words
                raise (DivergenceError if words["diverged"] else DualpropError)(
                    f"worker {number + 1} ({self.lines[number].name}): {words['error']}"
                )
            case _:
                pass

    def _greet(self, number: int, words: Mapping[str, Any]) -> None:
        """A worker has started: it is told where to go on, and all who is where."""
        line = self.lines[number]
        again, line.state = line.state == "falls", "works"
        if words["versions"] != versions():
            raise DualpropError(
                f"worker {number + 1} ({line.name}): versions {words['versions']}, "
                f"but the driver's are {versions()}"
            )
        self._endpoints[number], self._pids[number] = words["endpoint"], words["pid"]
        for near in (number - 1, number, number + 1):
            if 0 <= near < len(self.groups):
                self._say(near, Message.of(Kind.NEIGHBOURS, self._neighbours(near)))
        if again:
            before = self._told[number].get("counts", {}).get("updates", words["updates"])
            seconds, lost = time.monotonic() - self._fell[number], max(0, before - words["updates"])
            self.recoveries.append((number, seconds, lost))
            logger.warning(
                "worker %d (%s): goes on after %.1f s; %d updates lost", number + 1, line.name, seconds, lost
            )
            self._start(number)

    def _start(self, number: int) -> None:
        """Where it is to begin: behind all batches that anybody has seen."""
        seen = max(self.batch, *(told.get("next", 0) for told in self._told))
        self._say(number, Message.of(Kind.START, {"next": seen, "until": self.total}))

    def _neighbours(self, number: int) -> dict[str, str]:
        near = {"down": self._endpoints.get(number - 1), "up": self._endpoints.get(number + 1)}
        return {way: endpoint for way, endpoint in near.items() if endpoint is not None}

    def _note(self, number: int, words: Mapping[str, Any]) -> None:
        """A report."""
        line, now, before = self.lines[number], time.monotonic(), self._told[number]
        counts = words["counts"]
        for name in JUDGED:
            self._judged[name] += counts[name]
        if before:
            past = max(now - before["at"], 1e-3)
            speed = max(0, counts["updates"] - before["counts"]["updates"]) / past
            line.speed += (speed - line.speed) / 4
        if counts["updates"] > line.counts.get("updates", 0):
            self._falls[number] = 0
        line.counts, line.age = {name: counts[name] for name in LASTING}, words["age"]
        line.dropped, line.busy, line.share = words["dropped"], words["busy"], words["share"]
        self._told[number] = {**words, "at": now}
        if number == 0:
            self.batch = max(self.batch, words["next"])

    def _fallen(self, number: int, how: str) -> None:
        """A worker has died: it is started anew, and goes on from its own last snapshot."""
        line = self.lines[number]
        if line.state == "starts" or self._falls[number] >= FALLS:
            raise DualpropError(f"worker {number + 1} ({line.name}): {how}, and does not start")
        logger.warning("worker %d (%s): %s; started again", number + 1, line.name, how)
        self._fell[number] = time.monotonic()
        line.state = "falls"
        line.restarts += 1
        self._falls[number] += 1
        self._place(number)

    def give(self, net: Net) -> None:
        """See `Crew.give`; a worker that is just being started anew has those of its snapshot."""
        self._weights.clear()
        wanted = {(k, part) for k, names in self._names.items() for part in range(len(names))}
        asked, until = 0.0, time.monotonic() + self._carrier.timeout
        while set(self._weights) != wanted:
            now = time.monotonic()
            if now > until:
                raise DualpropError(f"timeout={self._carrier.timeout:g}: the workers do not say their weights")
            if now > asked + 5:
                asked = now
                for number in range(len(self.groups)):
                    self._say(number, Message.of(Kind.ASK, {}))
            self._turn(0.05)
        for k, layer in enumerate(net.stack, 1):
            layer.load_state_dict({name: self._weights[k, part] for part, name in enumerate(self._names[k])})

    def state_dict(self) -> dict[str, Any]:
        """The manifest: which worker has which layers, and where each file is; all save their layers now."""
        if self._hub is not None:
            self._asked += 1
            self._saved.clear()
            for number in range(len(self.groups)):
                self._say(number, Message.of(Kind.SAVE, {"number": self._asked}))
            until = time.monotonic() + 10
            while time.monotonic() < until and not all(
                self._saved.get(number, {}).get("number") == self._asked for number in range(len(self.groups))
            ):
                self._turn(0.02)
        return {
            "batch": self.batch,
            "groups": [list(group) for group in self.groups],
            "files": {str(k): f"{FOLDER}/{snapshot(self._path, k).name}" for k in self._names},
            "updates": [int(line.counts.get("updates", 0)) for line in self.lines],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back a manifest.

        Raises:
            DualpropError: if it is none, or one of its files is missing.
        """
        kinds = {"batch": CountOrZero, "groups": list[Any], "files": dict[str, str], "updates": list[int]}
        if set(check("workers", state, Mapping[str, Any])) != set(kinds):
            raise DualpropError(f"workers: holds {sorted(state)}, but it must hold {sorted(kinds)}")
        check_entries(state, kinds)
        for k in self._names:
            if not snapshot(self._path, k).is_file():
                raise CheckpointError(f"{snapshot(self._path, k)}: missing")
        self.batch = state["batch"]

    @property
    def lost(self) -> int:
        """Messages that a worker had no room for."""
        return int(sum(line.dropped for line in self.lines))

    def pid(self, number: int) -> int:
        """Of the process of a worker."""
        return self._pids[number]

    def _say(self, number: int, message: Message) -> None:
        assert self._hub is not None
        self._hub.say(number, message)
