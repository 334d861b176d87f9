"""What something says in a process of its own, with little time and little memory."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

import pytest

from dualprop.errors import DualpropError

SECONDS = 20
"""On a busy machine; on an idle one nothing of ours takes two."""
LONGEST = 5000
"""Characters of a line."""
MEMORY = 2**30
"""Bytes of address space beyond those of the test itself."""

limited = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are those of a process of its own")


def judged(*reads: Callable[[], object]) -> str:
    """Of a damaged file "read", or "refused" if one of those that read it says so; an AssertionError for all else.

    What is refused is one printable line of no great length, and no read takes long.
    """
    said, begun = "read", time.monotonic()
    for read in reads:
        try:
            read()
        except DualpropError as error:
            line, said = str(error), "refused"
            assert line.isprintable(), line
            assert len(line) < LONGEST, len(line)
    assert time.monotonic() - begun < SECONDS
    return said


def within_limits(work: Callable[[], str]) -> str:
    """What `work` returns, or what should never be: a traceback, or the signal that ended it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read_end)
            _limit()
            said = work()
        except BaseException:
            said = f"a traceback: {traceback.format_exc()}"
        os.write(write_end, said.encode("utf-8", "backslashreplace")[:60_000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if os.WIFEXITED(status) else f"killed by {signal.Signals(os.WTERMSIG(status)).name}"


def _limit() -> None:
    import resource

    import psutil
    import torch

    torch.set_num_threads(1)
    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
