"""Keep freed memory in the process, for gradients and states are freed and taken again at every step.

By default glibc hands large blocks back to the system, which then clears each page anew.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGE = 2**31 - 1


def keep_memory() -> None:
    """Tell glibc not to give memory back; does nothing elsewhere. For programs to call, not for libraries."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _LARGE)
