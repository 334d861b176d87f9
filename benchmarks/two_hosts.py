"""Two hosts as network namespaces, with a link of so many milliseconds and Mbit/s between them; Linux, as root.

python benchmarks/two_hosts.py [--delay 1] [--rate 100] [--cut 5] [--rules dp bp] [--epochs 1]

The link is a program: what one host sends to a virtual device is read here, waits, and is written to the other's.
It is there without netem, which not every kernel has. A line of JSON for each run goes to --out.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dualprop as dp
from dualprop.runs.environment import environment
from dualprop.runs.folder import Run
from dualprop.training.workers import start
from dualprop.training.workers.placement import HERE, Local

NAMES, ADDRESSES = ("dualprop-a", "dualprop-b"), ("10.77.0.1", "10.77.0.2")
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000
CLONE_NEWNET = 0x40000000


class Link(threading.Thread):
    """A cable between two virtual devices.

    Args:
        ends: the file descriptors of the devices.
        delay: seconds that a frame takes.
        rate: bits in a second, each way.
    """

    def __init__(self, ends: tuple[int, int], delay: float, rate: float) -> None:
        super().__init__(daemon=True)
        self._ends, self._delay, self._rate = ends, delay, rate
        self.cut = False  # whether nothing comes through

    def run(self) -> None:
        with suppress(OSError):  # the hosts are gone
            self._carry()

    def _carry(self) -> None:
        to = dict(zip(self._ends, reversed(self._ends), strict=True))
        waiting = {end: deque[tuple[float, bytes]]() for end in self._ends}
        free = dict.fromkeys(self._ends, 0.0)
        while True:
            now = time.monotonic()
            due = min((frames[0][0] for frames in waiting.values() if frames), default=now + 1)
            for end in select.select(self._ends, [], [], max(0.0, due - now))[0]:
                frame = os.read(end, 2**16)
                free[end] = max(free[end], time.monotonic()) + 8 * len(frame) / self._rate
                waiting[end].append((free[end] + self._delay, frame))
            for end, frames in waiting.items():
                while frames and frames[0][0] <= time.monotonic():
                    frame = frames.popleft()[1]
                    if not self.cut:
                        os.write(to[end], frame)


class Cut(dp.Callback):
    """Cuts the link in the middle of a run, for so many seconds."""

    def __init__(self, link: Link, seconds: float) -> None:
        self._link, self._seconds = link, seconds
        self._until: float | None = None

    def step(self, trainer: Any) -> None:
        if self._until is None and trainer.step > 200:
            self._until = time.monotonic() + self._seconds
        self._link.cut = self._until is not None and time.monotonic() < self._until


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def hosts(delay: float, rate: float) -> Link:
    """Make both, and the link; this process is on the first from then on."""
    ends = []
    for number, (name, address) in enumerate(zip(NAMES, ADDRESSES, strict=True)):
        ip("netns", "add", name)
        end = os.open("/dev/net/tun", os.O_RDWR)
        device = f"dualprop{number}"
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
        ip("link", "set", device, "netns", name)
        for words in (
            ("addr", "add", f"{address}/24", "dev", device),
            ("link", "set", device, "mtu", "9000", "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", name, *words)
        ends.append(end)
    link = Link((ends[0], ends[1]), delay, rate)
    link.start()
    with open(f"/run/netns/{NAMES[0]}") as space:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(space.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    return link


class Hosts(Local):
    """The first worker is on this host, the others are on the second."""

    def host(self) -> str:
        return ADDRESSES[0]

    def start(self, number: int, order: Mapping[str, Any]) -> None:
        at = 1 if number else 0
        listen = order["listen"].replace(HERE, ADDRESSES[at])
        self._at = at
        super().start(number, {**order, "listen": listen, "count": 0})  # and nobody who waits

    def _process(self, order: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dualprop.cli.worker"]
        on = ["ip", "netns", "exec", NAMES[1]] if self._at else []
        return subprocess.Popen([*on, *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=1.0, help="milliseconds, each way")
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s, each way")
    parser.add_argument("--cut", type=float, default=0.0, help="seconds in which nothing comes through")
    parser.add_argument("--rules", nargs="*", default=["dp", "bp"])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "workers.jsonl")
    given = parser.parse_args()
    where = {k: v for k, v in environment().items() if k not in ("command", "cwd", "path")}
    start._placement = lambda carrier, address: Hosts()
    try:
        link = hosts(given.delay / 1000, given.rate * 1e6)
        for rule in given.rules:
            settings = dp.Settings(
                rule=rule, data="mnist", hidden=(512, 512), loss="cross_entropy", lr=5e-4, alignment=False,
                checkpoint_every=1e9, threads=1, epochs=given.epochs,
            )  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                result = dp.distributed.train(
                    settings, Path(folder) / "run", workers=2, progress=False, callbacks=[Cut(link, given.cut)]
                )
                epoch = Run.open(Path(folder) / "run").metrics("epoch")[-1]
            record = {
                "what": "two hosts", "rule": rule, "delay_ms": given.delay, "mbit": given.rate, "cut": given.cut,
                "epochs": given.epochs, "test_accuracy": result.test_accuracy,
                "images_per_second": epoch["images_per_second"], "measures": epoch["measures"],
            }  # fmt: skip
            print(json.dumps(record), flush=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "environment": where}) + "\n")
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
