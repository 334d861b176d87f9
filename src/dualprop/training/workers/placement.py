"""Where workers' processes are, and who starts them anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

Order = Mapping[str, Any]

HERE = "{here}"
"""Stands for the address of the machine that a worker finds itself on."""


class Placement(ABC):
    """Starts workers, sees which have died, and ends them."""

    @abstractmethod
    def start(self, number: int, order: Order) -> None:
        """Start a worker, or start it anew."""

    @abstractmethod
    def dead(self, number: int) -> str:
        """How a worker ended that was not told to; empty if it lives."""

    @abstractmethod
    def end(self, seconds: float) -> None:
        """None is left, those that do not stop by themselves within some seconds included."""

    def check(self) -> None:
        """Refuse to begin where nothing can be placed.

        Raises:
            DualpropError: saying why.
        """

    def host(self) -> str | None:
        """This machine's address, where workers are on several; None on one."""
        return None


class Local(Placement):
    """Processes of this machine; one more than there are workers waits, with everything imported."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._spare: subprocess.Popen[bytes] | None = None

    def start(self, number: int, order: Order) -> None:
        """By the process that waits; then another one waits."""
        self._reap(number)
        spare = self._spare
        process = self._process(order) if spare is None or spare.poll() is not None else spare
        self._spare = None
        self._processes[number] = process
        with suppress(BrokenPipeError):
            _stdin(process).write(json.dumps(order).encode() + b"\n")
            _stdin(process).flush()
        if spare is not None or len(self._processes) == order["count"]:
            self._spare = self._process(order)

    def dead(self, number: int) -> str:
        """By its exit code."""
        code = self._processes[number].poll()
        return "" if code is None else f"killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def end(self, seconds: float) -> None:
        """Standard input ends, and then they are killed."""
        every = [*self._processes.values(), *([] if self._spare is None else [self._spare])]
        if self._spare is not None:
            self._spare.kill()
        until = time.monotonic() + seconds
        for process in every:
            with suppress(BrokenPipeError):
                _stdin(process).close()
        for process in every:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes, self._spare = {}, None

    def pid(self, number: int) -> int:
        """Of a worker's process."""
        return self._processes[number].pid

    def _reap(self, number: int) -> None:
        process = self._processes.pop(number, None)
        if process is not None:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                _stdin(process).close()

    def _process(self, order: Order) -> subprocess.Popen[bytes]:
        """One that waits for an order; Ctrl-C in the terminal is not for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "dualprop.cli.worker", *order["folders"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
