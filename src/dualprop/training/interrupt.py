"""Stopping between two steps: Ctrl-C, SIGTERM and SIGUSR1 ask, the loop answers when its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

IMPATIENT = (signal.SIGINT, signal.SIGTERM)
"""What acts as usual when it comes a second time."""
SIGNALS = (*IMPATIENT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
"""SIGUSR1 is what a cluster sends a job whose time runs out, perhaps to several of its processes."""


class Interrupt:
    """A context in which the first Ctrl-C, SIGTERM or SIGUSR1 only sets `asked`; a second one acts as usual.

    SIGUSR1 only ever asks.

    Contexts nest: what the inner one is asked, the outer one knows too. Outside the main thread, where signals
    cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore(*IMPATIENT)
        outer = getattr(self._before[signal.Signals(number)], "__self__", None)
        if isinstance(outer, Interrupt):
            outer._ask(number, frame)

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in self._before.keys() & set(numbers):
            signal.signal(number, self._before[number])

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS} if main else {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore(*SIGNALS)
