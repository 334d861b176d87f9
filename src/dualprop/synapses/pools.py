"""Pooling in front of a synapse, and how a difference finds its way back through it.

A pool is linearised where the state is: a max-pool hands a difference to the neuron that won, an average-pool to
every neuron alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.errors import DualpropError, at_least_one


class Seen(NamedTuple):
    """What a synapse remembers of the state it has read: enough to send a difference back.

    Attributes:
        shape: that of the state, batch first.
        operand: that of what the affine map reads: the pooled state's, or the same.
        layout: how the state lies in memory, and so what is sent back to it.
        winners: where each maximum was found, for a max-pool.
    """

    shape: torch.Size
    operand: torch.Size
    layout: torch.memory_format
    winners: Tensor | None = None

    @classmethod
    def of(cls, z: Tensor, p: Tensor, winners: Tensor | None = None) -> Seen:
        """What to remember of a state z that was read as p."""
        return cls(z.shape, p.shape, layout(z), winners)


def layout(z: Tensor) -> torch.memory_format:
    """How a state lies in memory: its channels last, or its images row by row."""
    channels_last = z.ndim == 4 and z.stride(1) == 1 and z.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


class Pool(ABC):
    """Pooling of a state (B, C, H, W) over square windows, without padding.

    Args:
        size: side of a window, at least 1.
        stride: steps between windows, `size` by default.

    Raises:
        DualpropError: if one of them is not a whole number of at least 1.
    """

    linear: bool  # whether its linearisation is the same for every state

    def __init__(self, size: int = 2, stride: int | None = None) -> None:
        self.size, self.stride = size, size if stride is None else stride
        at_least_one(size=self.size, stride=self.stride)

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """The pooled state, shape (B, C, H', W')."""

    @abstractmethod
    def see(self, z: Tensor) -> tuple[Tensor, Seen]:
        """The pooled state, and what `adjoint` needs."""

    @abstractmethod
    def adjoint(self, delta: Tensor, seen: Seen) -> Tensor:
        """The transpose of the pool's linearisation, applied to delta, of the pooled state's shape."""

    def out_shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one pooled sample, given that of the state.

        Raises:
            DualpropError: if the state is no image, or smaller than a window.
        """
        if len(in_shape) != 3 or min(in_shape[1:]) < self.size:
            raise DualpropError(f"x: {self} needs an image of at least {self.size} x {self.size}, not {in_shape}")
        channels, height, width = in_shape
        return channels, (height - self.size) // self.stride + 1, (width - self.size) // self.stride + 1

    def _like_state(self, delta: Tensor, seen: Seen) -> Tensor:
        """A tensor that PyTorch's backward functions ask the state's shape and layout of, and nothing else."""
        return torch.empty(seen.shape, dtype=delta.dtype, device=delta.device, memory_format=seen.layout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size}, stride={self.stride})"


class MaxPool2d(Pool):
    """The largest value of each window; the first among equals.

    Example:
        >>> import torch
        >>> pool, z = MaxPool2d(2), torch.arange(16.0).view(1, 1, 4, 4)
        >>> p, seen = pool.see(z)
        >>> p.flatten(), pool.adjoint(torch.ones_like(p), seen).nonzero().shape[0]
        (tensor([ 5.,  7., 13., 15.]), 4)
    """

    linear = False

    def __call__(self, z: Tensor) -> Tensor:
        """The maxima."""
        return F.max_pool2d(z, self.size, self.stride)

    def see(self, z: Tensor) -> tuple[Tensor, Seen]:
        """The maxima, and where they were."""
        p, winners = F.max_pool2d(z, self.size, self.stride, return_indices=True)
        return p, Seen.of(z, p, winners)

    def adjoint(self, delta: Tensor, seen: Seen) -> Tensor:
        """Each difference goes to its winner; zero elsewhere."""
        winners = seen.winners
        if winners is not None and self.stride >= self.size:  # none wins twice
            with torch.autocast(delta.device.type, enabled=False):  # it would make float32 of it
                return F.max_unpool2d(delta, winners, [self.size] * 2, [self.stride] * 2, output_size=seen.shape)
        sizes = [self.size] * 2, [self.stride] * 2, [0, 0], [1, 1]
        feedback: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            delta, self._like_state(delta, seen), *sizes, False, seen.winners
        )
        return feedback


class AvgPool2d(Pool):
    """The mean of each window."""

    linear = True

    def __call__(self, z: Tensor) -> Tensor:
        """The means."""
        return F.avg_pool2d(z, self.size, self.stride)

    def see(self, z: Tensor) -> tuple[Tensor, Seen]:
        """The means; there are no winners."""
        p = self(z)
        return p, Seen.of(z, p)

    def adjoint(self, delta: Tensor, seen: Seen) -> Tensor:
        """Each difference, divided by the size of its window, goes to all of it."""
        sizes = [self.size] * 2, [self.stride] * 2, [0, 0]
        feedback: Tensor = torch.ops.aten.avg_pool2d_backward(
            delta, self._like_state(delta, seen), *sizes, False, True, None
        )
        return feedback
