"""A batch as a rule gets it: checked, detached, with encoded targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.net import Inputs, Net
from dualprop.nets.shapes import Shape


class BatchReader:
    """Reads the batches of one net, or refuses them before anything is computed.

    Args:
        net: whose inputs and outputs they are.
        losses: one for each output, which encode its targets.
    """

    def __init__(self, net: Net, losses: Sequence[Loss]) -> None:
        self.net, self.losses = net, losses
        self._out_shapes: dict[tuple[Shape, ...], list[Shape]] = {}  # by the inputs'
        self._losses_checked = False

    def read(self, x: Inputs, y: Inputs) -> tuple[Any, Any]:
        """The batch, detached, with encoded targets.

        Raises:
            DualpropError: for one that the net or the loss cannot take.
        """
        x = self.read_inputs(x)
        inputs, outputs = in_order(x), self.net.wiring.outputs
        if len(outputs) > 1 and (not isinstance(y, tuple) or len(y) != len(outputs)):
            names = ", ".join(map(self.net.wiring.name, outputs))
            raise DualpropError(f"y: must be a tuple of {len(outputs)} targets, for the outputs {names}")
        samples, dtype = inputs[0].shape[0], inputs[0].dtype
        targets = []
        for target, shape, loss in zip(in_order(y), self._out_shapes[_shapes(inputs)], self.losses, strict=True):
            if type(target) is not Tensor:
                check("y", target, Tensor)
            whole = torch.Size((samples, *shape))
            targets.append(loss.encode(target.detach(), whole, dtype))
            if not self._losses_checked:
                loss.check_value(inputs[0].new_zeros(whole), targets[-1])
        if not self._losses_checked:
            self._losses_checked = True
        return x, self.net.packed(targets)

    def read_inputs(self, x: Inputs) -> Any:
        """The inputs, detached.

        Raises:
            DualpropError: for inputs that the net cannot take.
        """
        inputs = [self._read_input(each) for each in in_order(x)]
        self.net.check_inputs(inputs)
        if len(inputs) > 1 and len({len(each) for each in inputs}) > 1:
            raise DualpropError(
                f"x: batches of {', '.join(str(len(each)) for each in inputs)} samples, but they must be one"
            )
        key = _shapes(inputs)
        if key not in self._out_shapes:
            shapes = self.net.state_shapes(key)
            self._out_shapes[key] = [shapes[k] for k in self.net.wiring.outputs]
        for each in inputs:
            if not math.isfinite(each.sum()) and not all(map(math.isfinite, torch.aminmax(each))):
                raise DualpropError("x: NaN or infinite inputs")  # isfinite().all() takes ten passes
        return self.net.packed(inputs)

    def _read_input(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor:
            check("x", x, Tensor)
        if x.ndim < 2 or not x.shape[0]:
            raise DualpropError(f"x: shape {tuple(x.shape)}, but it must be (batch, ...) with at least one sample")
        dtype = self._dtype or x.dtype
        if x.dtype is not dtype or not dtype.is_floating_point:
            raise DualpropError(f"x: type {x.dtype}, but the net's parameters are {dtype}")
        return x.detach()

    @property
    def _dtype(self) -> torch.dtype | None:
        """The type of the net's parameters; looked up at every batch, for `net.double()` may have changed it."""
        first = next(iter(self.net.stack[0].synapse._parameters.values()), None)
        if first is None:  # the synapse has none, or they have been parametrised
            first = next(self.net.parameters(), None)
        return None if first is None else first.dtype


def _shapes(inputs: Sequence[Tensor]) -> tuple[Shape, ...]:
    """Of one sample of each."""
    if len(inputs) == 1:
        return (inputs[0].shape[1:],)
    return tuple([x.shape[1:] for x in inputs])


def in_order(tensors: Inputs) -> tuple[Tensor, ...]:
    """One tensor or several as a tuple."""
    return tensors if isinstance(tensors, tuple) else (tensors,)


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of what a loader gives, in which tuples of several have become lists.

    Raises:
        DualpropError: if it is no pair.
    """
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        kind = f"a {type(batch).__name__}"
        given = f"{kind} of {len(batch)}" if isinstance(batch, list | tuple) else kind
        raise DualpropError(f"data: a batch is {given}, but it must be a pair of inputs and targets")
    x, y = (tuple(each) if isinstance(each, list) else each for each in batch)
    return x, y
