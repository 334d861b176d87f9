"""The processes that train one net together, a part of every batch each; most often there is only one.

Every process has all the weights and takes the same steps: gradients are averaged over the processes before each.
Only the one that leads writes.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from typing_extensions import override

from dualprop.errors import DualpropError
from dualprop.nets.net import Inputs
from dualprop.rules.batch import in_order
from dualprop.training.processes import torchrun

T = TypeVar("T")

BUCKET = 2**23
"""Elements of the gradients that are sent together."""

NAP = 0.1
"""Seconds before a process leaves the others."""


class Alone:
    """One process by itself: its part is the whole batch, and whatever it says holds."""

    rank, count = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def shard(self, x: Inputs, y: Tensor) -> tuple[Inputs, Tensor]:
        """This process's part of a batch, the same rows of every batch: x, one or several (B, ...), and y (B,)."""
        return x, y

    def gather(self, output: Tensor, samples: int) -> Tensor:
        """The outputs for a whole batch of so many samples, from those for the part of each process."""
        return output

    def mean(self, value: float) -> float:
        """The mean over the samples of the last batch cut, from each process's mean over its part."""
        return value

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Make each tensor the mean over that batch, in place, from each process's mean over its part."""

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Make the `.grad` of each parameter that mean."""
        self.average(p.grad for p in parameters if p.grad is not None)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has raised it."""
        return flags

    def on_leader(self, work: Callable[[], T]) -> T:
        """Let the leading process do something that may fail; all get its result or raise its error."""
        return work()

    def gathered(self, value: T) -> list[T]:
        """The values of all processes by rank, for the one that leads; the others get none."""
        return [value]


class Group(Alone):
    """One of several processes, which talk through `torch.distributed`.

    Process r of N has the rows r, r + N, r + 2N, ... of each batch, so that a row keeps its process from batch to
    batch. Where a batch has fewer rows than there are processes, one without any takes the first as a dummy of no
    weight. A lazy rule there goes on from the dummy's states.
    """

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._share = 0.0  # of the batch last cut

    @override
    def shard(self, x: Inputs, y: Tensor) -> tuple[Inputs, Tensor]:
        rows = slice(self.rank, None, self.count)
        self._share = len(y[rows]) / len(y)
        if not self._share:
            rows = slice(0, 1)
        own = y[rows]
        cut = tuple([torch.empty_like(z[: len(own)]).copy_(z[rows]) for z in in_order(x)])  # in their memory order
        return (cut if isinstance(x, tuple) else cut[0]), own

    @override
    def gather(self, output: Tensor, samples: int) -> Tensor:
        rows = -(-samples // self.count)
        padded = output.new_zeros(rows, *output.shape[1:])
        padded[: len(output)] = output
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:samples]

    @override
    def mean(self, value: float) -> float:
        total = torch.tensor(value * self._share if self._share else 0.0, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    @override
    @torch.no_grad()
    def average(self, gradients: Iterable[Tensor]) -> None:
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket]).mul_(self._share)
            dist.all_reduce(flat)
            means = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, mean in zip(bucket, means, strict=True):
                gradient.copy_(mean.view(gradient.shape))

    @override
    def any(self, *flags: bool) -> tuple[bool, ...]:
        votes = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(votes)
        return tuple(bool(votes_for) for votes_for in votes)

    @override
    def on_leader(self, work: Callable[[], T]) -> T:
        outcome: list[object] = [None, None]
        if self.leads:
            try:
                outcome = [work(), None]
            except (DualpropError, OSError) as error:
                outcome = [None, error]
        dist.broadcast_object_list(outcome)
        if isinstance(outcome[1], BaseException):
            raise outcome[1] from None
        return outcome[0]  # type: ignore[return-value]  # what the leading process's work returned

    @override
    def gathered(self, value: T) -> list[T]:
        values: list[T] = [value] * self.count if self.leads else []
        dist.gather_object(value, values if self.leads else None)
        return values


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in order, in groups of one type with at most `BUCKET` elements, or of one larger gradient."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        if bucket and (held + gradient.numel() > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.numel()
    if bucket:
        yield bucket


def join() -> Alone:
    """This process among those that torchrun has started, or alone."""
    if torchrun.count() == 1:
        return Alone()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return Group()


def _leave() -> None:
    """Part from the others at the end of this process.

    A thread of gloo's that still holds a tensor of the last collective must not find the interpreter gone: it
    would abort the process. It waits for no more than this thread's lock on the interpreter, which a nap gives it.
    """
    time.sleep(NAP)
    if dist.is_initialized():
        dist.destroy_process_group()
