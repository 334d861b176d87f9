"""Max-pooling over square windows, and the way back to the winners."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.nets.kernels.arena import room


def largest(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """The largest of tensors of one shape, element by element, in the layout of `like`."""
    out = room(like, parts[0].shape) if len(parts) > 1 else None
    return reduce(lambda a, b: torch.maximum(a, b, out=out), parts)


def max_pool(z: Tensor, size: int, stride: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The maxima over windows, of this shape, and where in the image each was found."""
    p, winners = room(z, shape), room(z, shape, torch.int64)
    if p is None or winners is None:
        return F.max_pool2d(z, size, stride, return_indices=True)
    torch.ops.aten.max_pool2d_with_indices.out(z, [size] * 2, [stride] * 2, out=p, indices=winners)
    return p, winners


def max_unpool(delta: Tensor, winners: Tensor, size: int, stride: int, shape: torch.Size) -> Tensor:
    """Images of this shape: each delta where its maximum was found, zero elsewhere; of windows that lie apart."""
    out = room(delta, shape)
    if out is None:
        return F.max_unpool2d(delta, winners, [size] * 2, [stride] * 2, output_size=shape)
    made: Tensor = torch.ops.aten.max_unpool2d.out(delta, winners, list(shape[2:]), out=out)
    return made
