"""The products of a synapse without a graph, forward, feedback and weight gradient.

Weight gradients of convolutions in bf16 on a CPU: oneDNN is slow on the smallest maps, where one matrix product
over unfolded patches is faster: 512 -> 512 channels on 2 x 2 pixels, batch 100, 2 threads, 6.3 ms in place of 12.4
with torch 2.14, 2.2 in place of 8.0 with torch 2.15.

A convolution of one image on such a map in float32: the product of the weights with four columns of patches takes
MKL six times as long as that of four rows with the weights turned, 256 -> 512 channels on 2 x 2 pixels, 1 thread,
1.47 ms and 0.24, feedback 1.44 and 0.25.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.nets.kernels.arena import room

_FEW = 4  # places of a small map
_SHIFTED = 64  # places of a batch from whose patches weights move at once
_WIDE = 64  # channels, for fewer of which oneDNN is as good


def forward(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W z + b for each row z, shapes (B, n), (m, n), (m,) -> (B, m)."""
    return F.linear(z, weight, bias if bias is None or bias.dtype is z.dtype else bias.to(z.dtype))


def outer(delta: Tensor, p: Tensor) -> Tensor:
    """Σ delta p^T over the rows, shapes (B, m), (B, n) -> (m, n); of one row two thirds of a product's time."""
    cast = torch.is_autocast_enabled("cpu") and p.dtype not in (torch.get_autocast_dtype("cpu"), torch.float64)
    plain = delta.dtype is p.dtype and not cast  # or autocast brings both to its type, but not with `out`
    out = room(p, (delta.shape[1], p.shape[1])) if plain else None
    return torch.mm(delta.t(), p, out=out) if delta.shape[0] > 1 else torch.mul(delta.t(), p, out=out)


def total(delta: Tensor) -> Tensor:
    """Σ delta over the rows, or over the batch and all places; shapes (B, m) or (B, O, H, W) -> (m,) or (O,)."""
    if delta.dtype is torch.bfloat16 and delta.device.type == "cpu" and delta.ndim == 4:
        pixels = _as_pixels(delta)
        return torch.mm(pixels.new_ones(1, len(pixels)), pixels)[0]  # 0.15 ms for 0.38 ms on 100 x 64 x 32 x 32
    return delta.sum(0) if delta.ndim == 2 else delta.sum([0, *range(2, delta.ndim)])


class Geometry(NamedTuple):
    """How a square kernel moves over an image, as `torch.nn.functional.conv2d` takes it."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


def conv_forward(p: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """W ∗ p + b, shapes (B, C, H, W), (O, C/groups, k, k), (O,) -> (B, O, H', W')."""
    b = None if bias is None else bias.to(p.dtype)
    places = _places(p, weight, geometry)
    if not _suits_rows(p, weight, geometry, places):
        return F.conv2d(p, weight, b, *geometry)
    rows = F.linear(_rows(p, weight, geometry), weight.flatten(1), b)
    return rows.view(len(p), -1, len(weight)).transpose(1, 2).reshape(len(p), len(weight), *places)


def conv_adjoint(delta: Tensor, weight: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """The transpose of p -> W ∗ p, applied to delta, shapes (B, O, H', W') -> `shape`, that of p."""
    stride, padding, dilation, groups = geometry
    if _suits_rows(delta, weight, geometry, delta.shape[2:]):
        rows = torch.mm(_as_pixels(delta), weight.flatten(1)).view(len(delta), -1, weight[0].numel())
        kernel = tuple(weight.shape[2:])
        return F.fold(rows.transpose(1, 2), tuple(shape[2:]), kernel, dilation, padding, stride)
    rest = [
        n - ((m - 1) * stride - 2 * padding + dilation * (k - 1) + 1)
        for n, m, k in zip(shape[2:], delta.shape[2:], weight.shape[2:], strict=True)
    ]
    return F.conv_transpose2d(delta, weight, None, stride, padding, rest, groups, dilation)


def conv_outer(delta: Tensor, p: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Σ over the batch and all places of delta times the patch of p below it, of the shape of `weight`."""
    stride, padding, dilation, groups = geometry
    if _suits_patches(p, weight, geometry, (delta.shape[2], delta.shape[3])):
        kernel = weight.shape[2:]
        rows = torch.mm(_as_pixels(delta).t(), _patches(p, weight, padding, stride))
        return rows.view(len(rows), *kernel, -1).permute(0, 3, 1, 2)
    like = torch.empty_like(weight, dtype=delta.dtype, requires_grad=False)  # asked for its shape and layout alone
    gradient: Tensor = torch.ops.aten.convolution_backward(
        delta,
        p,
        like,
        None,
        [stride] * 2,
        [padding] * 2,
        [dilation] * 2,
        False,
        [0, 0],
        groups,
        [False, True, False],
    )[1]
    return gradient


def suits_shift(delta: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether `conv_shift` is quicker than to add `conv_outer`: few places, and weights that lie side by side."""
    few = len(delta) * delta.shape[2] * delta.shape[3] <= _SHIFTED
    return few and geometry.groups == 1 and weight.is_contiguous()


def conv_shift(weight: Tensor, delta: Tensor, p: Tensor, geometry: Geometry) -> None:
    """Add to `weight` what `conv_outer` gives, without memory for it."""
    weight.view(len(weight), -1).addmm_(_as_pixels(delta).t(), _rows(p, weight, geometry))


def _places(p: Tensor, weight: Tensor, geometry: Geometry) -> list[int]:
    """At how many places the kernel is, down and across."""
    stride, padding, dilation, _ = geometry
    return [
        (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for n, k in zip(p.shape[2:], weight.shape[2:], strict=True)
    ]


def _suits_rows(z: Tensor, weight: Tensor, geometry: Geometry, places: Sequence[int]) -> bool:
    return (
        z.dtype is weight.dtype is torch.float32
        and z.device.type == "cpu"
        and geometry.groups == 1
        and len(z) * places[0] * places[1] <= _FEW
        and weight.is_contiguous()
    )


def _rows(p: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The patch of p under the kernel at each place, (B·H'·W', C·k·k)."""
    stride, padding, dilation, _ = geometry
    patches = F.unfold(p, tuple(weight.shape[2:]), dilation, padding, stride)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _suits_patches(p: Tensor, weight: Tensor, geometry: Geometry, places: tuple[int, int]) -> bool:
    return (
        p.dtype is torch.bfloat16
        and p.device.type == "cpu"
        and geometry.dilation == geometry.groups == 1
        and places[0] * places[1] <= _FEW
        and weight.shape[1] >= _WIDE
    )


def _as_pixels(p: Tensor) -> Tensor:
    """(B, C, H, W) -> (B·H·W, C); no copy where the channels come last in memory."""
    return p.permute(0, 2, 3, 1).reshape(-1, p.shape[1])


def _patches(p: Tensor, weight: Tensor, padding: int, stride: int) -> Tensor:
    """The patch of p under the kernel at each place, (B·H'·W', k·k·C); without a padded copy of p."""
    batch, channels, *sides = p.shape
    kernel = weight.shape[2:]
    places = _places(p, weight, Geometry(stride, padding))
    patches = p.new_zeros(batch, *places, *kernel, channels)
    pixels = p.permute(0, 2, 3, 1)
    for i in range(kernel[0]):
        to_rows, rows = _overlap(i - padding, stride, places[0], sides[0])
        for j in range(kernel[1]):
            to_columns, columns = _overlap(j - padding, stride, places[1], sides[1])
            patches[:, to_rows, to_columns, i, j] = pixels[:, rows, columns]
    return patches.view(batch * places[0] * places[1], -1)


def _overlap(offset: int, stride: int, places: int, side: int) -> tuple[slice, slice]:
    """The places at which offset + stride·place is inside 0..side-1, and where that is."""
    first = max(0, -(offset // stride))
    count = max(0, min(places, (side - 1 - offset) // stride + 1) - first)
    begin = offset + stride * first
    return slice(first, first + count), slice(begin, begin + stride * count, stride)
