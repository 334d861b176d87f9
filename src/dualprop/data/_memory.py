"""How much memory is left, to refuse what does not fit before it is allocated."""

from __future__ import annotations

from pathlib import Path

import psutil

from dualprop.errors import DataError

_GROUP = Path("/sys/fs/cgroup")


def check_fits(needed: int, what: str, remedy: str) -> None:
    """Refuse what needs more memory than there is.

    Args:
        needed: bytes.
        what: it is for, for the message.
        remedy: what to do about it.

    Raises:
        DataError: if it does not fit.
    """
    if needed > (free := available()):
        raise DataError(
            f"{what}: need {needed / 2**30:.2f} GiB of memory, and {free / 2**30:.2f} GiB are free; {remedy}"
        )


def available() -> int:
    """Bytes that this process may still allocate, as far as the machine, its container and its limits say."""
    return max(0, min(int(psutil.virtual_memory().available), _of_group(), _of_process()))


def _of_group() -> int:
    """What a container of Linux leaves; what cannot be read does not limit."""
    try:
        most, used = ((_GROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return int(most) - int(used)
    except (OSError, ValueError):  # "max" is no number
        return 2**63


def _of_process() -> int:
    """What the limit of its address space leaves."""
    try:
        import resource
    except ImportError:  # on Windows
        return 2**63
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 2**63 if soft == resource.RLIM_INFINITY else soft - int(psutil.Process().memory_info().vms)
