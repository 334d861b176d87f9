"""Pooling in front of a synapse or behind it, and how a difference finds its way back through it.

A pool is linearised where the state is: a max-pool hands a difference to the neuron that won, an average-pool to
every neuron alike, a soft-max-pool to all by their derivatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import reduce
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualprop.arguments import Count, In, Positive, checked
from dualprop.errors import DualpropError
from dualprop.nets.kernels import pooling
from dualprop.nets.kernels.arena import converted, room
from dualprop.nets.potentials.complex import exponential
from dualprop.registry import Registry


class Linearisation(NamedTuple):
    """What a synapse remembers of the state it has read: enough to send a difference back.

    Attributes:
        shape: that of the state, batch first.
        operand: that of what the affine map reads: the pooled state's, or the same.
        layout: how the state lies in memory, and so what is sent back to it.
        memory: what the pool's linearisation takes besides: where each maximum was found, or derivatives.
        parts: what the synapse inside and the pool behind it remember, of a `Pooled`.
    """

    shape: torch.Size
    operand: torch.Size
    layout: torch.memory_format
    memory: tuple[Tensor, ...] = ()
    parts: tuple[Linearisation, ...] = ()

    @classmethod
    def of(cls, z: Tensor, p: Tensor, *memory: Tensor) -> Linearisation:
        """What to remember of a state z that was read as p."""
        return cls(z.shape, p.shape, layout(z), memory)


def layout(z: Tensor) -> torch.memory_format:
    """How a state lies in memory: its channels last, or its images row by row."""
    if z.ndim == 4 and z.stride(1) == 1 and z.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


class Pool(ABC):
    """Pooling of a state (B, C, H, W) over square windows, without padding.

    Args:
        size: side of a window, at least 1.
        stride: steps between windows, `size` by default.

    Raises:
        DualpropError: if one of them is not a whole number of at least 1.
    """

    linear: bool  # whether its linearisation is the same for every state
    holomorphic: bool  # whether it takes complex states and is differentiable there

    @checked
    def __init__(self, size: Count = 2, stride: Count | None = None) -> None:
        self.size, self.stride = size, size if stride is None else stride

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """The pooled state, shape (B, C, H', W')."""

    @abstractmethod
    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The pooled state, and what `adjoint` needs."""

    @abstractmethod
    def adjoint(self, delta: Tensor, linearised: Linearisation) -> Tensor:
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

    def module(self) -> nn.Module:
        """The pool as a PyTorch module: PyTorch's own, where it has one."""
        return Pooling(self)

    def _windows(self, z: Tensor) -> list[Tensor]:
        """The first neuron of every window, the second, ...: views of z, each of the pooled state's shape."""
        _, height, width = self.out_shape(tuple(z.shape[1:]))
        steps = [(i, j) for i in range(self.size) for j in range(self.size)]
        return [z[:, :, self._along(i, height), self._along(j, width)] for i, j in steps]

    def _along(self, first: int, windows: int) -> slice:
        """The places of one neuron of every window along a side, given that of the first window's."""
        return slice(first, first + (windows - 1) * self.stride + 1, self.stride)

    def _like_state(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """A tensor that PyTorch's backward functions ask the state's shape and layout of, and nothing else."""
        form = linearised.layout
        return torch.empty(linearised.shape, dtype=delta.dtype, device=delta.device, memory_format=form)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size}, stride={self.stride})"


class Pooling(nn.Module):
    """A pool that PyTorch has no module for.

    Args:
        pool: which.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, z: Tensor) -> Tensor:
        """The pooled state."""
        return self.pool(z)

    def extra_repr(self) -> str:
        """What `print` says of it."""
        return str(self.pool)


class MaxPool2d(Pool):
    """The largest value of each window; the first among equals.

    Example:
        >>> import torch
        >>> pool, z = MaxPool2d(2), torch.arange(16.0).view(1, 1, 4, 4)
        >>> p, linearised = pool.linearise(z)
        >>> p.flatten(), pool.adjoint(torch.ones_like(p), linearised).nonzero().shape[0]
        (tensor([ 5.,  7., 13., 15.]), 4)
    """

    linear = False
    holomorphic = False

    def __call__(self, z: Tensor) -> Tensor:
        """The maxima."""
        if torch.is_grad_enabled() or z.device.type != "cpu":
            return F.max_pool2d(z, self.size, self.stride)
        _, height, width = self.out_shape(tuple(z.shape[1:]))
        # of rows, then of columns: of 100 x 64 x 32 x 32 0.7 ms for 2.2, 2 for 20 where channels come first
        rows = pooling.largest([z[:, :, self._along(i, height)] for i in range(self.size)], z)
        return pooling.largest([rows[..., self._along(j, width)] for j in range(self.size)], z)

    def module(self) -> nn.Module:
        """`torch.nn.MaxPool2d`."""
        return nn.MaxPool2d(self.size, self.stride)

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The maxima, and where they were."""
        form = layout(z)
        ordered = z.contiguous(memory_format=torch.channels_last) if z.device.type == "cpu" else z  # 4 ms for 18
        shape = len(z), *self.out_shape(tuple(z.shape[1:]))
        p, winners = pooling.max_pool(ordered, self.size, self.stride, shape)
        return p.contiguous(memory_format=form), Linearisation.of(z, p, winners)

    def adjoint(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """Each difference goes to its winner; zero elsewhere."""
        (winners,) = linearised.memory
        if self.stride >= self.size:  # none wins twice
            with torch.autocast(delta.device.type, enabled=False):  # it would make float32 of it
                apart = pooling.max_unpool(delta, winners, self.size, self.stride, linearised.shape)
            return apart.contiguous(memory_format=linearised.layout)  # which a map of 1 x 1 does not tell
        sizes = [self.size] * 2, [self.stride] * 2, [0, 0], [1, 1]
        feedback: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            delta, self._like_state(delta, linearised), *sizes, False, winners
        )
        return feedback


class AvgPool2d(Pool):
    """The mean of each window; of complex states too.

    Example:
        >>> import torch
        >>> pool, z = AvgPool2d(2), torch.arange(16.0).view(1, 1, 4, 4)
        >>> p, linearised = pool.linearise(z)
        >>> p.flatten(), pool.adjoint(torch.ones_like(p), linearised).unique()
        (tensor([ 2.5000,  4.5000, 10.5000, 12.5000]), tensor([0.2500]))
    """

    linear = True
    holomorphic = True

    def __call__(self, z: Tensor) -> Tensor:
        """The means."""
        return _by_parts(self, z) if z.is_complex() else F.avg_pool2d(z, self.size, self.stride)

    def module(self) -> nn.Module:
        """`torch.nn.AvgPool2d`."""
        return nn.AvgPool2d(self.size, self.stride)

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The means; there is nothing to remember."""
        p = self(z)
        return p, Linearisation.of(z, p)

    def adjoint(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """Each difference, divided by the size of its window, goes to all of it."""
        if delta.is_complex():
            return _by_parts(lambda part: self.adjoint(part, linearised), delta)
        sizes = [self.size] * 2, [self.stride] * 2, [0, 0]
        feedback: Tensor = torch.ops.aten.avg_pool2d_backward(
            delta, self._like_state(delta, linearised), *sizes, False, True, None
        )
        return feedback


def _by_parts(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """A real linear map of a complex tensor."""
    return torch.complex(f(z.real), f(z.imag))


class SoftmaxPool2d(Pool):
    """p = Σ z e^{z/T} / Σ e^{z/T} over each window: the mean for high temperatures, the maximum for low ones.

    It is holomorphic: complex states are pooled by the same formula.

    Args:
        size: side of a window, at least 1.
        stride: steps between windows, `size` by default.
        temperature: T, positive.

    Raises:
        DualpropError: for another number.

    Example:
        >>> import torch
        >>> z = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        >>> [round(float(SoftmaxPool2d(temperature=t)(z)), 3) for t in (100.0, 1.0, 0.1)]
        [0.502, 0.731, 1.0]

    References:
        Laborieux, Zenke, *Holomorphic Equilibrium Propagation Computes Exact Gradients Through Finite Size
        Oscillations*, NeurIPS 2022.
    """

    linear = False
    holomorphic = True

    @checked
    def __init__(self, size: Count = 2, stride: Count | None = None, temperature: Positive = 1.0) -> None:
        super().__init__(size, stride)
        self.temperature = temperature

    def __call__(self, z: Tensor) -> Tensor:
        """The weighted means."""
        return self._pooled(z)[0].to(z.dtype)

    def linearise(self, z: Tensor) -> tuple[Tensor, Linearisation]:
        """The weighted means, and the derivatives by the neurons, e^{z/T} / Σ e^{z/T} · (1 + (z - p)/T)."""
        p, mean, depths, powers, scale = self._pooled(z)
        rate = torch.div(scale, self.temperature, out=room(scale))
        constant = torch.addcmul(scale, mean, rate, value=-1, out=room(scale))
        slopes = [
            converted(torch.addcmul(constant, depth, rate, out=room(rate)).mul_(power), z.dtype)
            for depth, power in zip(depths, powers, strict=True)
        ]
        p = converted(p, z.dtype)
        return p, Linearisation.of(z, p, *slopes)

    def adjoint(self, delta: Tensor, linearised: Linearisation) -> Tensor:
        """Each difference, times the derivatives at the state read, goes to all of its window."""
        same = layout(delta) == linearised.layout
        feedback = room(delta, linearised.shape) if same else None
        if feedback is None:
            feedback = self._like_state(delta, linearised)
        windows = list(zip(self._windows(feedback), linearised.memory, strict=True))
        sides = linearised.shape[2:]
        if self.stride == self.size and all(n % self.size == 0 for n in sides):  # they cover it once
            for one, slope in windows:
                torch.mul(delta, slope, out=one)
            return feedback
        feedback.zero_()
        for one, slope in windows:
            one.addcmul_(delta, slope)
        return feedback

    def _pooled(self, z: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], Tensor]:
        """In single precision at least: p, p - top, z - top and e^{(z - top)/T}, and one by the sum of these."""
        windows = self._windows(converted(z, torch.promote_types(z.dtype, torch.float32)))
        shape = windows[0].shape
        with torch.no_grad():  # what is taken from every neuron of a window cancels
            reals = [one.real if z.is_complex() else one for one in windows]
            top = pooling.largest(reals, reals[0])
        depths = [torch.sub(one, top, out=room(z, shape, one.dtype)) for one in windows]
        powers = [exponential(d if self.temperature == 1 else d / self.temperature) for d in depths]
        scale = torch.add(powers[0], powers[1], out=room(powers[0])) if len(powers) > 1 else powers[0].clone()
        scale = reduce(Tensor.add_, powers[2:], scale).reciprocal_()
        total = torch.mul(powers[0], depths[0], out=room(depths[0]))
        for power, depth in zip(powers[1:], depths[1:], strict=True):
            total = torch.addcmul(total, power, depth, out=room(total))
        mean = torch.mul(total, scale, out=room(total))
        return torch.add(top, mean, out=room(mean)), mean, depths, powers, scale

    def __repr__(self) -> str:
        return f"SoftmaxPool2d({self.size}, stride={self.stride}, temperature={self.temperature:g})"


POOLS: Registry[type[Pool]] = Registry("pool", {"max": MaxPool2d, "avg": AvgPool2d, "softmax": SoftmaxPool2d})
"""Called with the side of a window and, if it is another, the stride."""

PoolOrName = Annotated[Pool | str, In(POOLS)]
"""A pool, or the name of one over windows of 2 x 2."""
