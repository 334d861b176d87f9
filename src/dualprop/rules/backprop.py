"""Back-propagation by autograd on the same net: what every other rule is measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from dualprop.rules.base import Rule, Step


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

    @torch.enable_grad()
    def update(self, x: Tensor, y: Tensor) -> Step:
        """The gradient by autograd; arguments as in `Rule.update`."""
        torch.clear_autocast_cache()  # an optimizer may have changed the weights inside one autocast context
        output = self.net(x)
        loss = self.loss.value(output.to(y.dtype), y).mean()
        if loss.requires_grad:  # not if every parameter is frozen
            torch.autograd.backward(loss)
        return Step(loss.detach(), output.detach())
