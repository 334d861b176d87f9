"""The most memory that a step holds in tensors beyond what it found, from the allocator's own records."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile, record_function

Work = Callable[[], object]

_MEASURED = "dualprop.studies.bench: what is measured"


def peak_bytes(before: Work, work: Work, device: torch.device) -> int | None:
    """The peak while `work` runs twice, less what was held before; None where the device keeps no such records.

    Args:
        before: runs first: a processor knows the size of what is freed only if it saw it being taken.
        work: what is measured; what it keeps from the first time to the second counts.
        device: where.
    """
    measure = _PEAKS.get(device.type)
    return None if measure is None else measure(before, work)


def _on_cpu(before: Work, work: Work) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        before()
        with record_function(_MEASURED):
            work()
            work()
    events = recorded.profiler.kineto_results.events()
    begun = next(event.start_ns() for event in events if event.name() == _MEASURED)
    held = most = 0
    for event in events:
        if event.name() == "[memory]" and event.start_ns() >= begun:
            held += event.nbytes()
            most = max(most, held)
    return most


def _on_cuda(before: Work, work: Work) -> int:
    before()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    work()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held


_PEAKS: dict[str, Callable[[Work, Work], int]] = {"cpu": _on_cpu, "cuda": _on_cuda}
