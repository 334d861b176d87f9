"""ZeroMQ's sockets as workers use them: bounded, never waited for, loopback unless asked, locked where not."""

from __future__ import annotations

import ipaddress
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualprop.errors import DualpropError
from dualprop.extras import extra
from dualprop.training.workers.message import Message, RefusedError, unpacked


def outer(host: str) -> bool:
    """Whether others than this machine can reach an address of it; a name counts as one that they can."""
    try:
        return host != "localhost" and not ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return True


def zmq() -> Any:
    """The library.

    Raises:
        MissingExtraError: if it is not installed.
    """
    with extra("distributed", "workers"):
        import zmq
    return zmq


def new_key() -> str:
    """A key for one run: the secret half, from which the other one follows."""
    secret: bytes = zmq().curve_keypair()[1]
    return secret.decode()


class Sockets:
    """The sockets of one process.

    Args:
        key: of the run; None where nobody else can reach them.
        largest: bytes of a message, at most.

    Attributes:
        refused: messages that were none.
        dropped: messages that there was no room for.
    """

    def __init__(self, key: str | None, largest: int) -> None:
        self._zmq, self.refused, self.dropped = zmq(), 0, 0
        self._context = self._zmq.Context()
        self._key, self._largest, self._guard = key, largest, None
        if key is not None:
            from zmq.auth.thread import ThreadAuthenticator

            self._public: bytes = self._zmq.curve_public(key.encode())
            self._guard = ThreadAuthenticator(self._context)
            self._guard.start()
            self._guard.configure_curve_callback(domain="*", credentials_provider=self)
        self.poller = self._zmq.Poller()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether somebody with this public key is let in."""
        encoded: bytes = self._zmq.utils.z85.encode(key) if len(key) == 32 else key
        return encoded == self._public

    def make(self, kind: str, room: int) -> Any:
        """A socket.

        Args:
            kind: of ZeroMQ's.
            room: messages that it keeps, in each direction and for each neighbour.
        """
        socket = self._context.socket(getattr(self._zmq, kind))
        socket.setsockopt(self._zmq.LINGER, 0)
        socket.setsockopt(self._zmq.SNDHWM, room)
        socket.setsockopt(self._zmq.RCVHWM, room)
        socket.setsockopt(self._zmq.MAXMSGSIZE, self._largest)
        if kind == "ROUTER":
            socket.setsockopt(self._zmq.ROUTER_HANDOVER, 1)  # a worker that is started anew has the name it had
        socket.setsockopt(self._zmq.RECONNECT_IVL, 20)
        socket.setsockopt(self._zmq.RECONNECT_IVL_MAX, 500)
        if self._key is not None:
            socket.setsockopt(self._zmq.CURVE_SECRETKEY, self._key.encode())
            socket.setsockopt(self._zmq.CURVE_PUBLICKEY, self._public)
        return socket

    def bound(self, kind: str, room: int, endpoint: str) -> tuple[Any, str]:
        """A socket that listens, and where it does.

        Raises:
            DualpropError: if the address is taken, is none of this machine's, or can be reached by others while
                there is no key.
        """
        if self._key is None and endpoint.startswith("tcp:") and outer(endpoint.split("/")[2].rpartition(":")[0]):
            raise DualpropError(f"{endpoint}: others can reach it; it needs a key")
        socket = self.make(kind, room)
        if self._key is not None:
            socket.setsockopt(self._zmq.CURVE_SERVER, 1)
        try:
            socket.bind(endpoint)
        except self._zmq.ZMQError as error:
            raise DualpropError(f"{endpoint}: cannot be listened on ({error.strerror})") from None
        self.poller.register(socket, self._zmq.POLLIN)
        return socket, socket.getsockopt_string(self._zmq.LAST_ENDPOINT).rstrip("\0")

    def connected(self, kind: str, room: int, endpoint: str, identity: bytes | None = None) -> Any:
        """A socket that talks to whoever listens there, now or later."""
        socket = self.make(kind, room)
        if self._key is not None:
            socket.setsockopt(self._zmq.CURVE_SERVERKEY, self._public)
        if identity is not None:
            socket.setsockopt(self._zmq.IDENTITY, identity)
        else:
            socket.setsockopt(self._zmq.IMMEDIATE, 1)  # what nobody hears is dropped, not kept
        socket.connect(endpoint)
        return socket

    def listen(self, to: Any) -> None:
        """Wake up, too, when something has come to a socket or a file descriptor."""
        self.poller.register(to, self._zmq.POLLIN)

    def send(self, socket: Any, message: Message, to: bytes | None = None) -> None:
        """Send if there is room."""
        parts = [message.packed()] if to is None else [to, message.packed()]
        try:
            socket.send_multipart(parts, self._zmq.NOBLOCK)
        except self._zmq.ZMQError:  # no room, nobody there
            self.dropped += 1

    def received(self, socket: Any) -> Iterator[tuple[bytes, Message]]:
        """All that has come, with the sender's name if the socket knows it."""
        while True:
            try:
                *sender, data = socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            try:
                yield b"".join(sender), unpacked(data)
            except RefusedError:
                self.refused += 1

    def poll(self, seconds: float) -> dict[Any, int]:
        """Wait until something has come; where."""
        return dict(self.poller.poll(max(0, round(1000 * seconds + 0.49))))

    def farewell(self, socket: Any) -> None:
        """Close a socket, once its last words have had a moment to leave."""
        socket.setsockopt(self._zmq.LINGER, 500)
        socket.close()

    def close(self) -> None:
        """Close them all."""
        if self._guard is not None:
            self._guard.stop()
        self._context.destroy()


def folder() -> Path:
    """A new folder for Unix sockets and the like, which only this user can enter."""
    return Path(tempfile.mkdtemp(prefix="dualprop-"))


def check_free(host: str, port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        DualpropError: naming it.
    """
    try:
        with socket.socket() as trying:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "must be at most 65535"
        raise DualpropError(f"port={port}: cannot be listened on at {host} ({reason})") from None
