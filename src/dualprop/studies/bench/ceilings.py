"""What the machine itself can do: matrix products, convolutions and copies, taken in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dualprop.studies.bench.timing import Quartiles, Work, in_turn

SIDE = 2048
"""Rows and columns of the matrices."""

BATCH, CHANNELS, PIXELS, KERNEL = 100, 256, 8, 3
"""Of the convolution: one of vgg16's own."""

COPIED = 256 * 2**20
"""Bytes of the copy, far more than caches hold."""


@dataclass(frozen=True)
class Ceiling:
    """How fast one kind of work goes when it is all there is to do.

    Args:
        work: what it is.
        precision: a name in `PRECISIONS`.
        unit: "GFLOP/s" or "GB/s".
        amount: floating-point operations, or bytes read and written, each time.
        seconds: of every time.
    """

    work: str
    precision: str
    unit: str
    amount: float
    seconds: list[float]

    @property
    def rate(self) -> float:
        """The median rate, in `unit`."""
        return self.amount / Quartiles.of(self.seconds).median / 1e9


PRODUCT = "matrix product"


def measure(
    precisions: dict[str, torch.dtype], *, repeats: int, budget: float, device: torch.device
) -> list[Ceiling]:
    """The ceilings of this machine.

    Args:
        precisions: of the products, by name.
        repeats: of each.
        budget: seconds for all together.
        device: where they are measured.
    """
    work: dict[tuple[str, str, str, float], Work] = {}
    for name, dtype in precisions.items():
        for what, (make, amount) in _PRODUCTS.items():
            made = make(dtype, device)
            if made is not None:
                work[what, name, "GFLOP/s", amount] = made
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    work["memory copy", "bytes", "GB/s", 2.0 * COPIED] = lambda: copy.copy_(source)
    with torch.no_grad():
        times = in_turn(list(work.values()), repeats=repeats, budget=budget, device=device)
    return [Ceiling(*what, seconds) for what, seconds in zip(work, times, strict=True)]


def _matrices(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    a, b = (torch.rand(SIDE, SIDE, device=device) - 0.5 for _ in range(2))
    return a.to(dtype), b.to(dtype)


def _blas(dtype: torch.dtype, device: torch.device) -> Work:
    a, b = _matrices(dtype, device)
    return lambda: torch.mm(a, b)


def _onednn(dtype: torch.dtype, device: torch.device) -> Work | None:
    """oneDNN's inner product, where `torch.mm` is not its own already: float32 on a processor."""
    if device.type != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    a, b = _matrices(dtype, device)
    a = a.to_mkldnn()
    return lambda: torch.ops.aten.mkldnn_linear(a, b)


def _convolution(dtype: torch.dtype, device: torch.device) -> Work:
    x = torch.rand(BATCH, CHANNELS, PIXELS, PIXELS, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.rand(CHANNELS, CHANNELS, KERNEL, KERNEL, device=device) - 0.5
    weight = weight.to(dtype, memory_format=torch.channels_last)
    return lambda: F.conv2d(x, weight, padding=KERNEL // 2)


_PRODUCTS: dict[str, tuple[Callable[[torch.dtype, torch.device], Work | None], float]] = {
    PRODUCT: (_blas, 2.0 * SIDE**3),
    f"{PRODUCT}, oneDNN": (_onednn, 2.0 * SIDE**3),
    "convolution": (_convolution, 2.0 * BATCH * (CHANNELS * PIXELS * KERNEL) ** 2),
}
