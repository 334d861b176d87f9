"""The products with weights that PyTorch is asked for, seen from below: operators, counted by their shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Products(TorchDispatchMode):
    """A context that sees every matrix product and convolution, whoever asks for it, autograd too.

    Attributes:
        made: the multiply-adds of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator in (aten.mm, aten.addmm):
            a, b = args[-2:]
            self.made.append(len(a) * len(b) * b.shape[1])
        elif operator is aten.convolution:
            z, weight, transposed = args[0], args[1], args[6]
            self.made.append((z if transposed else result).numel() * weight[0].numel())
        elif operator is aten.convolution_backward:
            delta, weight, transposed, wanted = args[0], args[2], args[7], args[10]
            above = args[1] if transposed else delta
            self.made += [above.numel() * weight[0].numel()] * sum(wanted[:2])  # by input and weights
        elif any(word in str(operator) for word in ("mm", "linear", "einsum", "dot", "conv")):
            raise AssertionError(f"a product that this twin does not know: {operator}")
        return result
