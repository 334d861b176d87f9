"""The most memory that a step holds in tensors beyond what it found, from the allocator's own records."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile, record_function

Work = Callable[[], object]

_SECOND = "dualprop.studies.bench: the second time"


def peak_bytes(work: Work, device: torch.device) -> int | None:
    """The peak while `work` runs, less what was held before; None where the device keeps no such records.

    `work` runs twice on a processor, which knows the size of what is freed only if it saw it being taken.
    """
    measure = _PEAKS.get(device.type)
    return None if measure is None else measure(work)


def _on_cpu(work: Work) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
        with record_function(_SECOND):
            work()
    events = recorded.profiler.kineto_results.events()
    begun = next(event.start_ns() for event in events if event.name() == _SECOND)
    held = most = 0
    for event in events:
        if event.name() == "[memory]" and event.start_ns() >= begun:
            held += event.nbytes()
            most = max(most, held)
    return most


def _on_cuda(work: Work) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


_PEAKS: dict[str, Callable[[Work], int]] = {"cpu": _on_cpu, "cuda": _on_cuda}
