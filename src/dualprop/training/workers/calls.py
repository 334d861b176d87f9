"""Ray's own calls as what carries messages: nothing else to install, and slower than ZeroMQ."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dualprop.arguments import Count, NotNegative, Positive, checked
from dualprop.errors import DualpropError
from dualprop.training.workers.links import Hub
from dualprop.training.workers.message import Message, RefusedError, unpacked

KEPT = 1000
"""Messages to the driver that are kept until it asks."""
DRIVER = ""
"""The way to it."""


@checked
@dataclass(frozen=True)
class RayCalls:
    """Carries messages by calls of Ray's actors, whose own transport and security they have.

    A worker has as many calls to a neighbour on their way as its ring has room; what more there is it drops.

    Args:
        timeout: seconds in which workers must have started and answered.
        snapshot_every: seconds between two snapshots of a worker.
        largest: bytes of a message, at most.
    """

    timeout: Positive = 120.0
    snapshot_every: NotNegative = 5.0
    largest: Count = 2**28

    def check(self, workers: int, address: str | None) -> None:
        """Refuse to begin without a cluster.

        Raises:
            DualpropError: without an address.
        """
        if address is None:
            raise DualpropError('carrier=RayCalls(): goes with an address, that of a Ray cluster or "local"')

    def hub(self, placement: Any) -> Hub:
        """The driver's end."""
        return _Hub(placement)


class Mailbox:
    """What has come to a worker, and what it has to say to the driver."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._come: dict[str, deque[bytes]] = {DRIVER: deque(maxlen=KEPT), "up": deque(), "down": deque()}
        self._sayings: deque[bytes] = deque(maxlen=KEPT)

    def room(self, messages: int) -> None:
        """So many are kept of those from each neighbour, the latest."""
        with self._changed:
            for way in ("up", "down"):
                self._come[way] = deque(self._come[way], maxlen=messages)

    def take(self, way: str, packed: bytes) -> None:
        """Something has come."""
        with self._changed:
            self._come[way].append(packed)
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until something has come."""
        with self._changed:
            self._changed.wait_for(lambda: any(self._come.values()), max(0.0, seconds))

    def come(self, *ways: str) -> list[bytes]:
        """What has come that way."""
        with self._changed:
            packed = [each for way in ways for each in self._come[way]]
            for way in ways:
                self._come[way].clear()
        return packed

    def say(self, packed: bytes) -> None:
        """Something for the driver."""
        with self._changed:
            self._sayings.append(packed)
            self._changed.notify_all()

    def said(self, seconds: float) -> list[bytes]:
        """What there is for the driver; waits so long for something."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._sayings), seconds)
            packed = list(self._sayings)
            self._sayings.clear()
            self._changed.notify_all()
        return packed

    def farewell(self, seconds: float) -> None:
        """Wait until the driver has been told all."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sayings, seconds)


class RayEnd:
    """A worker's end; see `End`.

    Args:
        order: what the driver says.
        mail: where calls of its actor leave what has come.
    """

    def __init__(self, order: Mapping[str, Any], mail: Mailbox) -> None:
        import ray

        self._ray, self._mail, self._room = ray, mail, order["room"]
        self.endpoint: str = order["listen"]
        self.refused = self.dropped = 0
        self._to = dict[str, tuple[Any, list[Any]]]()  # the neighbour's actor, and calls on their way to it
        mail.room(self._room)

    def connect(self, way: str, endpoint: str) -> None:
        """See `End`."""
        with suppress(ValueError):  # it is gone again: its next greeting comes with its next start
            self._to[way] = self._ray.get_actor(endpoint), []

    def say(self, message: Message) -> None:
        """See `End`."""
        self._mail.say(message.packed())

    def send(self, way: str, message: Message) -> None:
        """See `End`."""
        if way not in self._to:
            return
        actor, away = self._to[way]
        if away:
            away[:] = self._ray.wait(away, num_returns=len(away), timeout=0)[1]
        if len(away) < self._room:
            away.append(actor.take.remote("down" if way == "up" else "up", message.packed()))
        else:
            self.dropped += 1

    def wait(self, seconds: float) -> bool:
        """See `End`."""
        self._mail.wait(seconds)
        return False

    def orders(self) -> Iterator[Message]:
        """See `End`."""
        return self._unpacked(self._mail.come(DRIVER))

    def messages(self) -> Iterator[Message]:
        """See `End`."""
        return self._unpacked(self._mail.come("up", "down"))

    def _unpacked(self, come: list[bytes]) -> Iterator[Message]:
        for packed in come:
            try:
                yield unpacked(packed)
            except RefusedError:
                self.refused += 1

    def close(self) -> None:
        """See `End`."""
        self._mail.farewell(0.5)


class _Hub:
    """See `Hub`: every actor is asked what it has to say, over and over."""

    def __init__(self, placement: Any) -> None:
        placement.host()  # which connects
        import ray

        self._ray, self._placement, self._name = ray, placement, f"dualprop-{secrets.token_hex(8)}"
        self.refused = 0
        self.order: dict[str, Any] = {"link": "ray", "folders": []}
        self._asked = dict[Any, int]()

    def listen(self, number: int) -> str:
        return f"{self._name}-{number}"

    def say(self, number: int, message: Message) -> None:
        actor = self._placement.actor(number)
        if actor is not None:
            actor.take.remote(DRIVER, message.packed())

    def heard(self, seconds: float) -> Iterator[tuple[int, Message]]:
        asked = set(self._asked.values())
        for number in self._placement.numbers:
            if number not in asked:
                self._asked[self._placement.actor(number).said.remote(1.0)] = number
        done, _ = self._ray.wait(list(self._asked), timeout=seconds)
        for each in done:
            number = self._asked.pop(each)
            try:
                said = self._ray.get(each)
            except self._ray.exceptions.RayError:  # it is being started anew
                time.sleep(min(seconds, 0.05))
                continue
            for packed in said:
                try:
                    yield number, unpacked(packed)
                except RefusedError:
                    self.refused += 1

    def close(self) -> None:
        self._asked.clear()
