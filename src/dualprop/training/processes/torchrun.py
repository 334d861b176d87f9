"""What torchrun tells each of the processes that it starts, in environment variables; without it there is one."""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process, from 0 on."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def count() -> int:
    """How many processes there are on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))
