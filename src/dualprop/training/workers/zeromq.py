"""ZeroMQ between processes: what may be set of it, the driver's end and a worker's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from dualprop.arguments import Count, CountOrZero, NotNegative, Positive, checked
from dualprop.errors import DualpropError
from dualprop.training.workers.links import Hub
from dualprop.training.workers.message import Message
from dualprop.training.workers.placement import HERE
from dualprop.training.workers.sockets import Sockets, check_free, folder, new_key, outer, zmq

SHORT = 80
"""Characters of the folder for temporary files; the name of a Unix socket in it has at most 107."""


@checked
@dataclass(frozen=True)
class ZeroMQ:
    """Carries messages between processes, of one machine or several.

    A socket keeps a few messages and drops what there is no room for; nobody waits for anybody. On one machine
    they are Unix sockets in a folder that only this user can enter, or TCP on the loopback interface. On any other
    address everything is encrypted, and only who has the run's key is listened to (CurveZMQ); the key is made anew
    for every run, and workers are given it as they are started.

    Args:
        host: the address to listen on, for TCP; None for Unix sockets. On a cluster it is the driver's, by default
            the one that the cluster knows; there each worker listens on its own machine's.
        port: the first of the ports to listen on, one for the driver and one for each worker; 0 for any.
        timeout: seconds in which workers must have started and answered.
        snapshot_every: seconds between two snapshots of a worker.
        largest: bytes of a message, at most.

    Example:
        >>> ZeroMQ(host="127.0.0.1").outer, ZeroMQ(host="192.0.2.1").outer
        (False, True)
    """

    host: str | None = None
    port: CountOrZero = 0
    timeout: Positive = 120.0
    snapshot_every: NotNegative = 5.0
    largest: Count = 2**28

    def __post_init__(self) -> None:
        if self.host is not None and self.host != "localhost":
            try:
                IPv4Address(self.host)
            except ValueError:
                raise DualpropError(f"host={self.host!r}: must be an IPv4 address of this machine") from None
        if self.port and self.host is None:
            raise DualpropError(f"port={self.port}: goes with host")
        if self.port > 65535:
            raise DualpropError(f"port={self.port}: must be at most 65535")

    @property
    def outer(self) -> bool:
        """Whether others than this machine can reach its sockets."""
        return self.host is not None and outer(self.host)

    def check(self, workers: int, address: str | None) -> None:
        """Refuse to begin where ZeroMQ is missing or could not listen.

        Args:
            workers: how many there are to be.
            address: of the Ray cluster that they are on, if they are.

        Raises:
            MissingExtraError: with the line that installs it.
            DualpropError: for an address that cannot be listened on.
        """
        zmq()
        if self.host is not None and not self.outer and outer((address or "").rpartition(":")[0] or "localhost"):
            raise DualpropError(f"host={self.host!r}: the workers of {address} could not reach it; leave it out")
        if self.host is not None:
            for port in range(self.port, self.port + workers + 1) if self.port else (0,):
                check_free(self.host, port)
        elif address is None and len(where := tempfile.gettempdir()) > SHORT:
            raise DualpropError(
                f"TMPDIR={where!r}: too long for Unix sockets, it must have at most {SHORT} characters"
            )

    def hub(self, placement: Any) -> Hub:
        """The driver's end."""
        return _Hub(self, placement.host())


class _Hub:
    """See `Hub`."""

    def __init__(self, zeromq: ZeroMQ, here: str | None) -> None:
        self._port, host = zeromq.port, zeromq.host or here
        self._listening = zeromq.host if here is None else HERE
        self._folder = folder() if host is None else None
        key = new_key() if here is not None or zeromq.outer else None
        self._sockets = Sockets(key, zeromq.largest)
        try:
            self._control, control = self._sockets.bound("ROUTER", 10_000, self._at(0, host))
        except DualpropError:
            self.close()
            raise
        self.order = {
            "link": "zeromq",
            "control": control,
            "key": key,
            "largest": zeromq.largest,
            "folders": [] if self._folder is None else [str(self._folder)],
        }

    @property
    def refused(self) -> int:
        return self._sockets.refused

    def listen(self, number: int) -> str:
        return self._at(number + 1, self._listening)

    def _at(self, number: int, host: str | None) -> str:
        if host is None:
            return f"ipc://{self._folder}/{number}"
        return f"tcp://{host}:{self._port + number if self._port else '*'}"

    def say(self, number: int, message: Message) -> None:
        self._sockets.send(self._control, message, f"worker{number}".encode())

    def heard(self, seconds: float) -> Iterator[tuple[int, Message]]:
        self._sockets.poll(seconds)
        for sender, message in self._sockets.received(self._control):
            number = sender.removeprefix(b"worker")
            if number.isdigit():
                yield int(number), message

    def close(self) -> None:
        self._sockets.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class ZeroMQEnd:
    """A worker's end; see `End`.

    Args:
        order: what the driver says.
        alive: a file descriptor that can be read when the driver is gone; None where somebody else sees to that.
    """

    def __init__(self, order: Mapping[str, Any], alive: int | None) -> None:
        self._alive, self._room = alive, order["room"]
        sockets = self._sockets = Sockets(order["key"], order["largest"])
        self._control = sockets.connected("DEALER", 1000, order["control"], f"worker{order['number']}".encode())
        sockets.listen(self._control)
        self._inbox, self.endpoint = sockets.bound("PULL", self._room, order["listen"])
        if alive is not None:
            sockets.listen(alive)
        self._to = dict[str, tuple[str, Any]]()

    @property
    def refused(self) -> int:
        """See `End`."""
        return self._sockets.refused

    @property
    def dropped(self) -> int:
        """See `End`."""
        return self._sockets.dropped

    def connect(self, way: str, endpoint: str) -> None:
        """See `End`."""
        before = self._to.get(way)
        if before is not None and before[0] == endpoint:
            return
        if before is not None:
            before[1].close()
        self._to[way] = endpoint, self._sockets.connected("PUSH", self._room, endpoint)

    def say(self, message: Message) -> None:
        """See `End`."""
        self._sockets.send(self._control, message)

    def send(self, way: str, message: Message) -> None:
        """See `End`."""
        if way in self._to:
            self._sockets.send(self._to[way][1], message)

    def wait(self, seconds: float) -> bool:
        """See `End`."""
        ready = self._sockets.poll(seconds)
        return self._alive is not None and self._alive in ready and not os.read(self._alive, 1)

    def orders(self) -> Iterator[Message]:
        """See `End`."""
        return (message for _, message in self._sockets.received(self._control))

    def messages(self) -> Iterator[Message]:
        """See `End`."""
        return (message for _, message in self._sockets.received(self._inbox))

    def close(self) -> None:
        """See `End`."""
        self._sockets.farewell(self._control)
        self._sockets.close()
