"""Memory for large results, used again from batch to batch.

On a CPU PyTorch asks the system for the memory of every large result anew, and to be given it costs more than to
write into it: a ReLU of 13 million numbers takes 28 ms in fresh memory and 5 ms in memory that is there (n = 10,
one thread). On a GPU PyTorch itself keeps what has been freed.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

LEAST = 2**20
"""Bytes; to look for memory for less takes as long as to be given it."""
WIDER = 2
"""Times its size a block may have for a result: larger ones wait for larger ones."""
SIZES = 256
"""Of blocks, that are known at once: batches of ever new shapes leave none behind."""
KEPT = 4
"""Steps for which memory stays that nobody asks for: a prediction between two updates is one."""


class Arena:
    """Memory for the large results of steps that are alike, as the inferences on batches of one shape are.

    During a `step` of it `room` finds memory there for what the thread computes. A block comes back by itself when
    the last tensor on it is gone, whoever has kept that, and serves the next result of its size. What `KEPT` steps
    have had no use for is given up.

    Example:
        >>> arena, x = Arena(), torch.ones(600, 600)
        >>> def double():
        ...     with arena.step():
        ...         return torch.add(x, x, out=room(x))
        >>> first = double().data_ptr()  # and the result is gone
        >>> kept = double()
        >>> kept.data_ptr() == first, double().data_ptr() == first
        (True, False)
    """

    def __init__(self) -> None:
        self._idle: dict[int, deque[tuple[int, Tensor]]] = {}
        self._number = 0

    def step(self) -> Open:
        """The next step, a context."""
        self.begin()
        return Open(self)

    def begin(self) -> None:
        """The next step begins."""
        self._number += 1
        for idle in self._idle.values():
            while idle and idle[0][0] < self._number - KEPT:
                idle.popleft()
        if len(self._idle) > SIZES:
            self._idle = {size: idle for size, idle in self._idle.items() if idle}

    def lend(self, size: int) -> torch.UntypedStorage:
        """Memory of so many bytes that nobody else has."""
        block = self._found(size)
        if block is None:
            block = torch.empty(size, dtype=torch.uint8, device="cpu")
            if size not in self._idle:
                self._idle = dict(sorted({**self._idle, size: deque()}.items()))
        seen = block.numpy()[:size]  # an object that lives as long as a tensor on this memory does
        weakref.finalize(seen, _give_back, weakref.ref(self), block).atexit = False
        return torch.from_numpy(seen).untyped_storage()

    def _found(self, size: int) -> Tensor | None:
        """The smallest block that will do, if there is one that is not much too large."""
        for found, idle in self._idle.items():
            if size <= found <= WIDER * size:
                try:
                    return idle.pop()[1]
                except IndexError:
                    continue
        return None

    def take_back(self, block: Tensor) -> None:
        """A block that nobody has any more; given up where its size is no longer known."""
        idle = self._idle.get(len(block))
        if idle is not None:
            idle.append((self._number, block))

    def __deepcopy__(self, memo: object) -> Arena:
        return Arena()

    def __reduce__(self) -> tuple[type[Arena], tuple[()]]:
        return Arena, ()


class Open:
    """A context in which an arena is open in this thread.

    Args:
        arena: which.
    """

    __slots__ = ("_arena", "_token")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def __enter__(self) -> Arena:
        self._token = _HERE.set(self._arena)
        return self._arena

    def __exit__(self, *exception: object) -> None:
        _HERE.reset(self._token)


def _give_back(arena: weakref.ref[Arena], block: Tensor) -> None:
    owner = arena()
    if owner is not None:
        owner.take_back(block)


_PLAIN = (Tensor, torch.nn.Parameter)
"""Others may be anything: shards, or shapes alone."""
_HERE: ContextVar[Arena | None] = ContextVar("arena", default=None)


def is_large(z: Tensor) -> bool:
    """Whether memory is looked for where there is an arena."""
    return z.nbytes >= LEAST


def room(like: Tensor, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None) -> Tensor | None:
    """Memory for a large result, as the `out` of a function; None where PyTorch is to find some.

    Args:
        like: whose layout the result has.
        shape: the result's; that of `like` by default.
        dtype: the result's; that of `like` by default.

    Returns:
        A tensor that holds anything, or None: without an arena, off the CPU, for small results and in a graph.
    """
    numbers = like.numel() if shape is None else math.prod(shape)
    if numbers * (dtype or like.dtype).itemsize < LEAST or torch.compiler.is_compiling():
        return None
    arena = _HERE.get()
    if arena is None or type(like) not in _PLAIN or like.device.type != "cpu" or torch.is_grad_enabled():
        return None
    if shape is None:
        form = torch.empty_like(like, dtype=dtype, device="meta")
    else:
        last = like.ndim == len(shape) == 4 and like.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        form = torch.empty(tuple(shape), dtype=dtype or like.dtype, device="meta", memory_format=layout)
    return torch.empty(0, dtype=form.dtype, device="cpu").set_(
        arena.lend(form.nbytes), 0, form.shape, form.stride()
    )


def converted(z: Tensor, dtype: torch.dtype, *, copy: bool = False) -> Tensor:
    """z in another type, or z itself if that is its type and no `copy` is wanted."""
    same = z.dtype is dtype
    if same and not copy:
        return z
    out = room(z, dtype=dtype)
    if out is not None:
        return out.copy_(z)
    return z.clone() if same else z.to(dtype)


def empty_like(z: Tensor) -> Tensor:
    """Memory for a result like z."""
    out = room(z)
    return torch.empty_like(z) if out is None else out
