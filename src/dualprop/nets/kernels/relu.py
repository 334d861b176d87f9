"""The difference of two states of a ReLU, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def fall(a: Tensor, nudge: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h = max(a, 0) and how far it falls if the drive does by `nudge`: h - max(a - nudge, 0) = min(h, nudge).

    Nothing is subtracted from a number near it, so both are exact in the type of a, be the nudge ever so small.

    Args:
        a: the higher drive; written over.
        nudge: at least 0, of the same shape.
        out: where the second result may be put, for example over `nudge`; there is no graph then.

    Example:
        >>> fall(torch.tensor([3.0, 1.0, -1.0]), torch.tensor([2.0, 2.0, 2.0]))
        (tensor([3., 1., 0.]), tensor([2., 1., 0.]))
    """
    h = a.relu_()
    return h, torch.minimum(nudge, h, out=out)
