"""Workers placed, watched and restarted by Ray, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualprop.errors import DualpropError
from dualprop.extras import extra
from dualprop.training.workers.calls import Mailbox, RayEnd
from dualprop.training.workers.placement import HERE, Order, Placement
from dualprop.training.workers.sockets import folder

LOCAL = "local"
ANSWERS = 20.0
"""Seconds in which a cluster must answer."""

TRIAL = "import sys, ray; print(flush=True); ray.init(sys.argv[1], log_to_driver=False)"
"""A program that connects, once it has said that Ray is imported."""


class OnRay(Placement):
    """Actors of a Ray cluster, one for each worker; Ray starts one anew whose process or machine is gone.

    No dashboard, no usage statistics; "local" listens on the loopback interface alone.

    Args:
        address: of the cluster; "local" starts one of this machine, "auto" takes the one that runs here.

    Raises:
        DualpropError: if Ray is missing, or the cluster does not answer.
    """

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address == LOCAL:  # Ray keeps to the loopback interface where it is told that there is no cluster
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        with extra("distributed", f"address={address!r}"):
            import ray
        self._ray, self._address, self._connected = ray, address, False
        self._actors: dict[int, Any] = {}
        self._running: dict[int, Any] = {}
        self._folder: Path | None = None  # of a cluster that is started here

    def _connect(self) -> None:
        if self._connected:
            return
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self._address == LOCAL:
                self._folder = folder()
                self._ray.init(
                    num_cpus=1,
                    include_dashboard=False,
                    object_store_memory=80 * 2**20,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(self._folder),
                    **quiet,
                )
            else:
                self._ray.init(address=self._address, **quiet)
        except Exception as error:  # Ray raises that very class where what it starts is too slow
            with suppress(Exception):
                self._ray.shutdown()
            what = "no Ray cluster starts here" if self._address == LOCAL else "no Ray cluster answers there"
            reason = " ".join(str(error).split())[:200]
            raise DualpropError(f"address={self._address!r}: {what} ({reason})") from None
        self._connected = True

    def check(self) -> None:
        """Ask the address for an answer, and whether it is Ray's; Ray itself would go on asking for minutes."""
        address = self._address
        if address == LOCAL:
            return
        host, colon, port = address.rpartition(":")
        if address != "auto" and (not colon or not port.isdigit() or not 0 < int(port) < 2**16):
            raise DualpropError(f"address={address!r}: must be HOST:PORT, auto or local")
        try:
            if colon:
                socket.create_connection((host, int(port)), ANSWERS).close()
        except OSError as error:
            raise DualpropError(f"address={address!r}: does not answer ({error})") from None
        if reason := _trial(address):
            raise DualpropError(f"address={address!r}: no Ray cluster answers there ({reason[:200]})")

    def host(self) -> str | None:
        """This machine's address as the cluster knows it."""
        self._connect()
        address: str = self._ray.util.get_node_ip_address()
        return address

    def start(self, number: int, order: Order) -> None:
        """The actor, or the same one once Ray has started it anew."""
        self._connect()
        if number not in self._actors:
            named = {"name": order["listen"]} if order["link"] == "ray" else {}
            actor = self._ray.remote(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=8,
                scheduling_strategy="SPREAD",
                **named,
            )(_Actor)
            self._actors[number] = actor.remote()
        self._running[number] = self._actors[number].serve.remote(dict(order))

    @property
    def numbers(self) -> list[int]:
        """Of the workers that have been started."""
        return list(self._actors)

    def actor(self, number: int) -> Any:
        """Of a worker; None before it is started."""
        return self._actors.get(number)

    def dead(self, number: int) -> str:
        """By what its task has come to."""
        done, _ = self._ray.wait([self._running[number]], timeout=0)
        if not done:
            return ""
        try:
            self._ray.get(done[0])
        except self._ray.exceptions.RayActorError:
            return "killed"
        except self._ray.exceptions.RayError as error:
            return " ".join(str(error).split())[-300:]
        return "ended"

    def end(self, seconds: float) -> None:
        """They stop by themselves, or are killed; a cluster that was started here ends, too."""
        if self._connected:
            running = list(self._running.values())
            with suppress(Exception):
                self._ray.wait(running, num_returns=len(running), timeout=max(0.0, seconds))
            for actor in self._actors.values():
                with suppress(Exception):
                    self._ray.kill(actor)
            self._ray.shutdown()
            self._connected = False
            self._actors, self._running = {}, {}
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _trial(address: str) -> str:
    """Why a process cannot connect to a cluster; empty if it can. Ray tries for a minute, and then ends it."""
    command = [sys.executable, "-c", TRIAL, address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            _, said = process.communicate(timeout=ANSWERS)
        except subprocess.TimeoutExpired:
            return f"none within {ANSWERS:g} s"
        finally:
            process.kill()
        return next(reversed(said.strip().splitlines()), "it does not say why") if process.returncode else ""


class _Actor:
    """What Ray places; while it works it can be called."""

    def __init__(self) -> None:
        self._mail = Mailbox()

    def take(self, way: str, packed: bytes) -> None:
        """A message from the driver ("") or a neighbour ("up" or "down")."""
        self._mail.take(way, packed)

    def said(self, seconds: float) -> list[bytes]:
        """What it has to say to the driver; waits so long for something."""
        return self._mail.said(seconds)

    def serve(self, order: Order) -> None:
        """Work until the driver says stop; Ray ends this process with the driver."""
        import importlib

        from dualprop.training.workers.process import Server
        from dualprop.training.workers.zeromq import ZeroMQEnd

        if order["imports"]:
            importlib.import_module("dualprop.cli._imports").again([Path(file) for file in order["imports"]])
        listen = order["listen"]
        if HERE in listen:
            import ray

            listen = listen.replace(HERE, ray.util.get_node_ip_address())
        order = {**order, "listen": listen}
        calls = order["link"] == "ray"
        Server(order, lambda: RayEnd(order, self._mail) if calls else ZeroMQEnd(order, None)).serve()
