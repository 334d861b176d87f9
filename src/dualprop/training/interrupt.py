"""Stopping between two steps: Ctrl-C and SIGTERM ask, the loop answers when its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context in which the first Ctrl-C or SIGTERM only sets `asked`; a second one acts as usual.

    Contexts nest: what the inner one is asked, the outer one knows too. Outside the main thread, where signals
    cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        outer = getattr(self._before[signal.Signals(number)], "__self__", None)
        if isinstance(outer, Interrupt):
            outer._ask(number, frame)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS} if main else {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
