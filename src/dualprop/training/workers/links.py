"""What carries messages between processes, as workers and their driver see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from dualprop.training.workers.message import Message


class Hub(Protocol):
    """The driver's end: it hears all workers, and speaks to each."""

    @property
    def refused(self) -> int:
        """Messages that were none."""

    @property
    def order(self) -> Mapping[str, Any]:
        """What a worker must be told to find it, as plain values."""

    def listen(self, number: int) -> str:
        """Where a worker, from 0 on, is to listen to its neighbours."""

    def say(self, number: int, message: Message) -> None:
        """Say something to a worker, if it is there and has room."""

    def heard(self, seconds: float) -> Iterator[tuple[int, Message]]:
        """What workers have said, with the number of each; waits so long for something."""

    def close(self) -> None:
        """Nothing of it is left."""


class End(Protocol):
    """A worker's end: nobody waits for anybody, and what there is no room for is dropped."""

    @property
    def refused(self) -> int:
        """Messages that were none."""

    @property
    def dropped(self) -> int:
        """Messages that there was no room for."""

    @property
    def endpoint(self) -> str:
        """Where its neighbours find it."""

    def connect(self, way: str, endpoint: str) -> None:
        """From now on its neighbour, "up" or "down", is there."""

    def say(self, message: Message) -> None:
        """Say something to the driver."""

    def send(self, way: str, message: Message) -> None:
        """Say something to a neighbour; nothing is said where there is none yet."""

    def wait(self, seconds: float) -> bool:
        """Wait until something has come; whether the driver is known to be gone."""

    def orders(self) -> Iterator[Message]:
        """What has come from the driver."""

    def messages(self) -> Iterator[Message]:
        """What has come from neighbours."""

    def close(self) -> None:
        """Nothing of it is left; its last words have had a moment to leave."""
