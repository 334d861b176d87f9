"""How weights move at every tick: along the gradient of each edge by itself, or by one of PyTorch's optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import NotNegative, checked
from dualprop.engines.dyads.neurons import Link
from dualprop.nets.net import Net
from dualprop.registry import Registry
from dualprop.rules.state import restored, saved

Call = Callable[[], object]


class WeightStep(ABC):
    """What moves the weights: a link is bound once, and what is bound is called when an error has come."""

    by_grad = False  # whether anything that it has bound goes by way of `.grad`

    @abstractmethod
    def bind(self, link: Link, scale: float) -> Call:
        """What makes a link learn from the difference above and the mean below, whatever these hold then.

        Args:
            link: whose neurons' tensors stay.
            scale: 1/(β_k B), of the gradient -scale (z_k^+ - z_k^-) z̄^T.
        """

    def begin(self, net: Net) -> None:
        """A tick begins."""

    def finish(self, net: Net) -> None:
        """All links have learnt that could."""

    def widened(self) -> None:
        """Parameters have been widened."""

    def state_dict(self) -> dict[str, Any]:
        """What it keeps from tick to tick."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Take back what `state_dict` gave."""


class Local(WeightStep):
    """ΔW = rate · (z_k^+ - z_k^-) z̄^T / (β_k B): every edge by itself, at once, with nothing kept.

    One's own gives `rating`.

    Args:
        lr: the learning rate, at least 0; may be changed in mid-stream.
    """

    @checked
    def __init__(self, lr: NotNegative) -> None:
        self.lr = lr

    @abstractmethod
    def rating(self, z: Tensor) -> Callable[[], float | Tensor]:
        """A call that gives the step's length for each sample, shape (B,), or one for all of them.

        Args:
            z: the mean below, shape (B, ...), whatever it holds then.
        """

    def bind(self, link: Link, scale: float) -> Call:
        """By the synapse's own quick call where it has one, otherwise by way of `.grad`."""
        z, difference = link.below.mean, link.above.difference
        assert z is not None
        assert difference is not None
        pushed = torch.empty_like(difference)
        move = link.synapse.moving(pushed, z)
        one = link.synapse.moving(difference, z)
        column = [-1] + [1] * (difference.ndim - 1)
        self.by_grad |= move is None
        rated = self.rating(z)

        def learn() -> None:
            rate = rated()
            if isinstance(rate, float) and one is not None:
                one(rate * scale)
                return
            each = rate.view(column) if isinstance(rate, Tensor) else rate
            torch.mul(difference, each * scale, out=pushed)
            if move is not None:
                move(1.0)
            else:
                link.synapse.add_grad(pushed, z)

        return learn

    def begin(self, net: Net) -> None:
        """Forget gradients."""
        if self.by_grad:
            net.zero_grad()

    def finish(self, net: Net) -> None:
        """Move what has learnt by way of `.grad`."""
        for p in net.parameters() if self.by_grad else ():
            if p.grad is not None:
                p.add_(p.grad)

    def state_dict(self) -> dict[str, Any]:
        """The learning rate."""
        return {"lr": self.lr}

    def load_state_dict(self, state: Any) -> None:
        """Take it back."""
        self.lr = float(restored(self.lr, state["lr"], "state: step.lr"))


class SGD(Local):
    """ΔW = lr · (z_k^+ - z_k^-) z̄^T / (β_k B): plain gradient descent.

    Under delay the largest stable rate is about ten times smaller than without.
    """

    def rating(self, z: Tensor) -> Callable[[], float]:
        """The learning rate."""
        return lambda: self.lr


class Normalised(Local):
    """ΔW = lr/(1 + ‖z̄‖²) · (z_k^+ - z_k^-) z̄^T / (β_k B), for each sample: the drive's own change is at most lr.

    Local as the update itself, for a synapse sees z̄. It allows larger rates where errors come late.
    """

    def rating(self, z: Tensor) -> Callable[[], float | Tensor]:
        """The rate lr/(1 + ‖z̄‖²) of each sample."""
        flat = z.flatten(1)
        only = flat[0]
        if len(flat) == 1:
            return lambda: self.lr / (1 + torch.dot(only, only).item())
        return lambda: self.lr / (1 + flat.square().sum(1))


class Gradients(WeightStep):
    """Gradients in `.grad`, where they are left until the next tick, and a step of an optimizer of PyTorch's.

    A parameter to whose layer no error has come has no gradient, and the optimizer leaves it alone. Adam divides
    by the size of gradients that it has seen some ticks ago: where errors come late or labels are rare, a rate
    that is stable for batches may not be.

    Args:
        optimizer: over the net's parameters.
    """

    by_grad = True

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def bind(self, link: Link, scale: float) -> Call:
        """Add to `.grad`."""
        z, difference = link.below.mean, link.above.difference
        assert z is not None
        assert difference is not None

        def learn() -> None:
            link.synapse.add_grad(difference.mul(-scale), z)

        return learn

    def begin(self, net: Net) -> None:
        """Forget the last tick's."""
        self.optimizer.zero_grad()

    def finish(self, net: Net) -> None:
        """A step, if there is a gradient."""
        if any(p.grad is not None for p in net.parameters()):
            self.optimizer.step()

    def widened(self) -> None:
        """What is known of a parameter gets its shape, with zeros where it is new."""
        for p, known in self.optimizer.state.items():
            for name, each in known.items():
                if isinstance(each, Tensor) and each.ndim == p.ndim and each.shape != p.shape:
                    wide = each.new_zeros(p.shape)
                    wide[tuple(map(slice, each.shape))] = each
                    known[name] = wide

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return {"optimizer": saved(self.optimizer)}

    def load_state_dict(self, state: Any) -> None:
        """Take it back."""
        restored(self.optimizer, state["optimizer"], "state: step.optimizer")


STEPS: Registry[type[Local]] = Registry("step", {"normalised": Normalised, "sgd": SGD})
