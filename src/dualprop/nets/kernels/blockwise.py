"""Element-wise arithmetic on large tensors, in blocks that stay in the cache.

Half of what is to be done with a large tensor is to read and write it. Done as a whole, every intermediate goes
through main memory too, and needs room there; block by block, only the tensor itself does.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.nets.kernels.arena import empty_like

BLOCK = 2**18
"""Elements at once, 1 MiB in float32: on 2 threads smaller ones cost more, larger ones gain little."""

Elementwise = Callable[..., tuple[Tensor, ...]]


def blockwise(
    f: Elementwise,
    *tensors: Tensor,
    outputs: int,
    out: tuple[Tensor, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:
    """f(*tensors) of an element-wise f, computed in float32 at least and rounded once, at the end.

    Large tensors on a CPU are done in blocks, bit for bit as in one piece. Under torch.compile, which fuses the
    conversions itself, and with a graph, everything is done in one piece.

    Args:
        f: from tensors of one shape, in `dtype`, to a tuple of `outputs` tensors of that shape. It may overwrite
            what it is given: copies, or what nobody reads afterwards.
        tensors: of one shape and device. The first one's type and memory format are those of the results; dense
            tensors of its strides are read as they lie, others are brought to its strides first.
        outputs: how many tensors f makes.
        out: where they may be put; used for large ones of the first one's strides. Where they are `tensors` and
            f computes in their type, it gets blocks of them, not copies.
        dtype: the type that f computes in: by default float32, or float64 where the first tensor is.

    Returns:
        As many tensors.

    Raises:
        DualpropError: for tensors of different shapes.

    Example:
        >>> import torch
        >>> a, g = torch.tensor([1.0, -2.0]).bfloat16(), torch.tensor([0.5, 0.5]).bfloat16()
        >>> blockwise(lambda a, g: (a.add_(g), a * g), a, g, outputs=2)
        (tensor([ 1.5000, -1.5000], dtype=torch.bfloat16), tensor([ 0.7500, -0.7500], dtype=torch.bfloat16))
    """
    first = tensors[0]
    if any(t.shape != first.shape for t in tensors):
        raise DualpropError(f"tensors: shapes {[tuple(t.shape) for t in tensors]}, but they must be one shape")
    full = dtype or torch.promote_types(first.dtype, torch.float32)
    if not suits_blocks(first):
        return tuple(result.to(first.dtype) for result in f(*(t.to(full, copy=True) for t in tensors)))
    dense = torch.empty_like(first, device="meta").stride()
    if out is None or any(t.stride() != dense or t.dtype != first.dtype for t in out):
        out = tuple(empty_like(first) for _ in range(outputs))
    order = sorted(range(first.ndim), key=dense.__getitem__, reverse=True)
    over = all(map(is_, out, tensors)) and first.dtype is full
    flat = [t.permute(order).contiguous().view(-1) for t in (tensors if over else (*tensors, *out))]
    for blocks in zip(*(torch.split(t, BLOCK) for t in flat), strict=True):
        made = f(*(blocks if over else (block.to(full, copy=True) for block in blocks[: len(tensors)])))
        for result, block in zip(made, blocks if over else blocks[len(tensors) :], strict=True):
            if result is not block:
                block.copy_(result)
    return out


def suits_blocks(first: Tensor) -> bool:
    """Whether a tensor is large enough to be done in blocks, where that can be."""
    return (
        first.numel() > BLOCK
        and first.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
