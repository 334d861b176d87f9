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
        self._fitting: dict[tuple[object, ...], list[Shape]] = {}  # what the inputs are: the outputs' shapes
        self._losses_checked = False

    def read(self, x: Inputs, y: Inputs) -> tuple[Any, Any]:
        """The batch, detached, with encoded targets.

        Raises:
            DualpropError: for one that the net or the loss cannot take.
        """
        inputs, shapes = self._read(x)
        outputs = self.net.wiring.outputs
        if len(outputs) > 1 and (not isinstance(y, tuple) or len(y) != len(outputs)):
            names = ", ".join(map(self.net.wiring.name, outputs))
            raise DualpropError(f"y: must be a tuple of {len(outputs)} targets, for the outputs {names}")
        samples, dtype = inputs[0].shape[0], inputs[0].dtype
        targets = []
        for target, shape, loss in zip(in_order(y), shapes, self.losses, strict=True):
            if type(target) is not Tensor:
                check("y", target, Tensor)
            whole = torch.Size((samples, *shape))
            targets.append(loss.encode(target.detach() if target.requires_grad else target, whole, dtype))
            if not self._losses_checked:
                loss.check_value(inputs[0].new_zeros(whole), targets[-1])
        if not self._losses_checked:
            self._losses_checked = True
        return self.net.packed(inputs), self.net.packed(targets)

    def read_inputs(self, x: Inputs) -> Any:
        """The inputs, detached.

        Raises:
            DualpropError: for inputs that the net cannot take.
        """
        return self.net.packed(self._read(x)[0])

    def _read(self, x: Inputs) -> tuple[list[Tensor], list[Shape]]:
        """The inputs, detached, and the shapes of one sample of the outputs."""
        inputs: list[Tensor] = []
        kinds: list[object] = [self._dtype]
        for each in in_order(x):
            if type(each) is not Tensor:
                check("x", each, Tensor)
            inputs.append(each.detach() if each.requires_grad else each)
            kinds += each.dtype, each.shape[1:]
        shapes = self._fitting.get(key := tuple(kinds))
        if shapes is None:
            shapes = self._fitting[key] = self._fit(inputs)
        samples = inputs[0].shape[0]
        for each in inputs:
            if not each.shape[0]:
                raise DualpropError(_NO_BATCH.format(tuple(each.shape)))
            if each.shape[0] != samples:
                counts = ", ".join(str(other.shape[0]) for other in inputs)
                raise DualpropError(f"x: batches of {counts} samples, but they must be one")
            if not math.isfinite(each.sum()) and not all(map(math.isfinite, torch.aminmax(each))):
                raise DualpropError("x: NaN or infinite inputs")  # isfinite().all() takes ten passes
        return inputs, shapes

    def _fit(self, inputs: Sequence[Tensor]) -> list[Shape]:
        """The shapes of one sample of the outputs, for inputs that the net takes."""
        for x in inputs:
            if x.ndim < 2:
                raise DualpropError(_NO_BATCH.format(tuple(x.shape)))
            dtype = self._dtype or x.dtype
            if x.dtype is not dtype or not dtype.is_floating_point:
                raise DualpropError(f"x: type {x.dtype}, but the net's parameters are {dtype}")
        self.net.check_inputs(inputs)
        shapes = self.net.state_shapes([x.shape[1:] for x in inputs])
        return [shapes[k] for k in self.net.wiring.outputs]

    @property
    def _dtype(self) -> torch.dtype | None:
        """The type of the net's parameters; looked up at every batch, for `net.double()` may have changed it."""
        first = next(iter(self.net.stack[0].synapse._parameters.values()), None)
        if first is None:  # the synapse has none, or they have been parametrised
            first = next(self.net.parameters(), None)
        return None if first is None else first.dtype


_NO_BATCH = "x: shape {}, but it must be (batch, ...) with at least one sample"


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
