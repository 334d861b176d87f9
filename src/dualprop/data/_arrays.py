"""Arrays of numpy or torch, or what numpy makes one of, as samples and targets."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualprop.data.dataset import Split
from dualprop.errors import DualpropError


def of_arrays(features: Any, targets: Any, name: str) -> Split:
    """Return arrays as a part of a data set, without copying what is of the right type.

    Args:
        features: X, see `own_dataset`.
        targets: y, likewise.
        name: train or test, for messages.

    Raises:
        DualpropError: for what is no array of numbers, sizes that do not fit, NaN or infinite numbers.
    """
    x, y = _tensor(features, f"{name} X"), _tensor(targets, f"{name} y")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DualpropError(
            f"data: {name} X and y must have one row each for a sample, not {_sizes(x)} and {_sizes(y)}"
        )
    if x.dtype == torch.uint8 and x.ndim in (3, 4):
        x = x if x.ndim == 4 else x.unsqueeze(1)
    else:
        x = _finite(x, f"{name} X").view(len(x), -1) if x.ndim == 1 else _finite(x, f"{name} X")
    if y.is_floating_point():
        return Split(x, _finite(y, f"{name} y").view(len(y), -1) if y.ndim == 1 else _finite(y, f"{name} y"))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.squeeze(1)
    if y.ndim != 1:
        raise DualpropError(
            f"data: {name} y must be labels of shape (N,) or floating-point targets, not {_sizes(y)}"
        )
    return Split(x, y.long())


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, np.ma.MaskedArray):
        raise DualpropError(f"data: {name} is a masked array, whose mask nobody here reads; fill it")
    try:
        tensor = values.detach() if isinstance(values, Tensor) else _of_numpy(np.asarray(values))
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DualpropError(f"data: {name} must be numbers, of one shape each ({reason})") from None
    if not is_dense(tensor) or tensor.is_complex():
        raise DualpropError(f"data: {name} must be real numbers in a dense array, not {kind_of(tensor)}")
    return tensor.cpu()


def is_dense(tensor: Tensor) -> bool:
    """Whether it holds its numbers one by one: not sparse, nested or quantised, nor on the meta device."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def kind_of(tensor: Tensor) -> str:
    """Of what type it is, and how it holds its numbers, in words."""
    nested = "nested, " if tensor.is_nested else ""
    return f"{nested}{tensor.dtype}, {tensor.layout}, on {tensor.device.type}"


def _of_numpy(array: npt.NDArray[Any]) -> Tensor:
    """Without a copy, a memory map that may only be read included: nobody here writes."""
    if array.dtype.kind in "US":
        raise TypeError("words become whole numbers by np.unique(y, return_inverse=True)")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _finite(tensor: Tensor, name: str) -> Tensor:
    """As float32, every number finite."""
    values = tensor.to(torch.float32)
    if not values.numel():
        raise DualpropError(f"data: {name} of shape {_sizes(tensor)} holds nothing")
    bad = ~values.isfinite().view(len(values), -1).all(1)
    if bool(bad.any()):
        raise DualpropError(f"data: {name} has a NaN or infinite number in row {int(bad.nonzero()[0])}")
    return values


def _sizes(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
