"""Back-propagation by autograd on the same net: what every other rule is measured against."""

from __future__ import annotations

import torch
from typing_extensions import override

from dualprop.nets.devices.places import QUANTITIES
from dualprop.nets.net import Inputs
from dualprop.rules.base import Rule
from dualprop.rules.batch import in_order
from dualprop.rules.step import Step


class Backprop(Rule):
    """The gradient of the batch-mean loss by reverse-mode differentiation.

    Args:
        net: the net to train.
        loss: a name in `LOSSES` or a `Loss`.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.Backprop(dp.nets.mlp([4, 8, 3]), loss="cross_entropy")
        >>> rule.backward(torch.randn(5, 4), torch.randint(3, (5,))).output.shape
        torch.Size([5, 3])
    """

    differentiates = True
    averages = True
    channelled = frozenset(QUANTITIES) - {"feedback_weights"}  # autograd goes down through what it came up by

    graphs = True
    calls_hooks = True

    @override
    def reference(self) -> Rule:
        return self

    @torch.enable_grad()
    def update(self, x: Inputs, y: Inputs) -> Step:
        """The gradient by autograd; arguments as in `Rule.update`."""
        outputs, targets = in_order(self.net(x)), in_order(y)
        loss = self.value([z.to(target.dtype) for z, target in zip(outputs, targets, strict=True)], targets)
        if loss.requires_grad:  # not if every parameter is frozen
            torch.autograd.backward(loss)
        return Step(loss.detach(), self.net.packed([z.detach() for z in outputs]))
