"""Two steps in turn, so that what the machine does meanwhile happens to both; and what to say of the times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

WARM_UP = 3
"""Steps before the clock is read: the first ones make momentum, oneDNN's kernels and its caches."""

BLOCK = 0.05
"""Seconds that are timed at once: a loop makes the same step again and again, and finds its code in the caches."""

T = TypeVar("T")

Work = Callable[[], object]


@dataclass(frozen=True)
class Quartiles:
    """The middle half of some numbers. Of one number, three times that number."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of `values`, between neighbours where they fall between two."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """above[i] / below[i]: each time beside the one it was taken with."""
    return [a / b for a, b in zip(above, below, strict=True)]


def answered(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """How long `work` takes, what it left to an accelerator included, and what it answers."""
    wait(device)
    begun = time.perf_counter()
    answer = work()
    wait(device)
    return time.perf_counter() - begun, answer


def seconds(work: Work, device: torch.device) -> float:
    """How long `work` takes, what it left to an accelerator included."""
    return answered(work, device)[0]


def wait(device: torch.device) -> None:
    """Until the accelerator has done what it was asked; a processor always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def in_turn(work: Sequence[Work], *, repeats: int, budget: float, device: torch.device) -> list[list[float]]:
    """The times of several pieces of work, taken in turn: 1 2, 2 1, 1 2, ...

    What takes less than `BLOCK` is done several times in a row, and a time is the mean.

    Args:
        work: what is timed.
        repeats: of each.
        budget: seconds after which no further round begins; one is always finished. A quarter of it at most is
            spent on warming up.
        device: where the work is done.

    Returns:
        For each piece of work as many times as there were rounds.
    """
    begun = time.perf_counter()
    last = [0.0 for _ in work]
    for _ in range(WARM_UP):
        for i, one in enumerate(work):
            last[i] = seconds(one, device)
        if time.perf_counter() - begun > budget / 4:
            break
    times: list[list[float]] = [[] for _ in work]
    for repeat in range(repeats):
        if repeat and time.perf_counter() - begun > budget:
            break
        order = range(len(work)) if repeat % 2 == 0 else reversed(range(len(work)))
        for i in order:
            count = max(1, round(BLOCK / last[i])) if last[i] else 1
            times[i].append(seconds(partial(_again, work[i], count), device) / count)
    return times


def _again(work: Work, count: int) -> None:
    for _ in range(count):
        work()
