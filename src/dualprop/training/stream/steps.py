"""How weights move at every tick: along the gradient of each edge by itself, or by one of PyTorch's optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import Count, NotNegative, check, checked
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.synapses import Dense
from dualprop.registry import Registry
from dualprop.rules.state import restored, saved

Call = Callable[[], object]


class WeightStep(ABC):
    """What moves the weights: a link is bound once, and what is bound is called when an error has come."""

    by_grad = False  # whether anything that it has bound goes by way of `.grad`

    def check(self, net: Net) -> None:
        """Refuse a net that it cannot move.

        Raises:
            DualpropError: for the first synapse that does not fit.
        """

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
        self._lr = lr

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = check("lr", lr, NotNegative)

    @abstractmethod
    def rating(self, z: Tensor) -> Callable[[], float | Tensor]:
        """A call that gives the step's length for each sample, shape (B,), or one for all of them.

        Args:
            z: the mean below, shape (B, ...), whatever it holds then.
        """

    def bind(self, link: Link, scale: float) -> Call:
        """By the synapse's own quick call where it has one, otherwise by way of `.grad`."""
        return self._moving(link, scale)

    def _moving(self, link: Link, scale: float) -> Callable[[], float | Tensor]:
        """What makes a link learn, and says at which rate."""
        z, difference = link.below.mean, link.above.difference
        assert z is not None
        assert difference is not None
        pushed = torch.empty_like(difference)
        move = link.synapse.moving(pushed, z)
        one = link.synapse.moving(difference, z)
        column = [-1] + [1] * (difference.ndim - 1)
        shift = link.synapse.shifting(pushed) if move is None else None
        self.by_grad |= move is None and shift is None
        rated = self.rating(z)

        def learn() -> float | Tensor:
            rate = rated()
            if isinstance(rate, float) and one is not None:
                one(rate * scale)
                return rate
            each = rate.view(column) if isinstance(rate, Tensor) else rate
            torch.mul(difference, each * scale, out=pushed)
            if move is not None:
                move(1.0)
            elif shift is not None:
                shift(z, link.operand if link.fresh else None)
            else:
                link.synapse.add_grad(pushed, z)
            return rate

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
        return lambda: self._lr


class Normalised(Local):
    """ΔW = lr/(1 + ‖z̄‖²) · (z_k^+ - z_k^-) z̄^T / (β_k B), for each sample: the drive's own change is at most lr.

    Local as the update itself, for a synapse sees z̄. It allows larger rates where errors come late.
    """

    def rating(self, z: Tensor) -> Callable[[], float | Tensor]:
        """The rate lr/(1 + ‖z̄‖²) of each sample."""
        flat = z.flatten(1)
        only = flat[0]
        if len(flat) == 1:
            return lambda: self._lr / (1 + torch.dot(only, only).item())
        return lambda: self._lr / (1 + flat.square().sum(1))


class Centred(Normalised):
    """The normalised step with centred inputs, c = z̄ - m: what is below on average, m, moves no weights.

    With u = lr/(1 + ‖c‖²) · (z_k^+ - z_k^-)/(β_k B) for each sample,

        ΔW = u c^T,  Δb = u (1 - m·c),

    a step in W and in W m + b, where A(z) = W (z - m) + (W m + b). States have a large part in common, and along
    it errors that come late overshoot first; without it larger rates are stable. The drive's own change is the
    same as that of the normalised step. Local: a synapse sees z̄ and keeps its mean.

    Args:
        lr: the learning rate, at least 0.
        memory: samples over which the mean is taken; of all that there have been as long as these are fewer.

    References:
        Schraudolph, *Centering Neural Network Gradient Factors* (1998).
    """

    @checked
    def __init__(self, lr: NotNegative, memory: Count = 1000) -> None:
        super().__init__(lr)
        self.memory = memory
        self._means: dict[str, Tensor] = {}  # by the numbers of the layers at the ends of an edge
        self._seen: dict[str, int] = {}

    def check(self, net: Net) -> None:
        """Dense synapses without pools, with biases that are parameters and learn; or what has no parameters."""
        edges = net.wiring.edges
        for e, synapse in enumerate(net.synapses):
            if not any(True for part in synapse.parts for _ in part.parameters()):
                continue
            if not isinstance(synapse, Dense) or synapse.pool is not None or not _learns(synapse.bias):
                what = f"{net.wiring.arrow(e)}, {type(synapse).__name__}, is none"
                raise DualpropError(f"step='centred': takes dense synapses with a bias that learns, but {what}")
            if edges[e] in edges[:e]:
                raise DualpropError(f"step='centred': takes one edge {net.wiring.arrow(e)}, but there are several")

    def bind(self, link: Link, scale: float) -> Call:
        """What is bound to one synapse shares its mean."""
        z, difference, synapse = link.below.mean, link.above.difference, link.synapse
        assert isinstance(synapse, Dense)
        assert synapse.bias is not None
        assert z is not None
        assert difference is not None
        k, flat, bias = f"{link.below.number}-{link.above.number}", z.flatten(1), synapse.bias.detach()
        c, m, seen, samples = torch.empty_like(flat), self._mean(k, flat), self._seen, len(flat)
        centred = Neurons(link.below.number, link.below.potential)
        centred.mean = c
        learn = self._moving(Link(synapse, centred, link.above), scale)
        only, above = c[0], difference[0]

        def learn_centred() -> None:
            torch.sub(flat, m, out=c)
            rate = learn()
            seen[k] += samples
            share = samples / min(seen[k], max(samples, self.memory))
            if isinstance(rate, float):  # of one sample
                bias.add_(above, alpha=-rate * scale * torch.dot(only, m).item())
                m.add_(only, alpha=share)
            else:
                bias.addmv_(difference.t(), (c @ m).mul_(rate), alpha=-scale)
                m.add_(c.mean(0), alpha=share)

        return learn_centred

    def _mean(self, k: str, z: Tensor) -> Tensor:
        """What is below an edge on average: as it is known, zero where it has been widened."""
        known = self._means.get(k)
        if known is None or len(known) != z.shape[1]:
            self._means[k] = z.new_zeros(z.shape[1])
            if known is not None:
                self._means[k][: len(known)] = known
        self._seen.setdefault(k, 0)
        return self._means[k]

    def state_dict(self) -> dict[str, Any]:
        """The learning rate and the means."""
        means = {k: m.clone() for k, m in self._means.items()}
        return {**super().state_dict(), "means": means, "seen": dict(self._seen)}

    def load_state_dict(self, state: Any) -> None:
        """Take it back."""
        super().load_state_dict(state)
        self._means = {k: m.clone() for k, m in state["means"].items()}
        self._seen = {k: int(n) for k, n in state["seen"].items()}


def _learns(bias: Tensor | None) -> bool:
    return bias is not None and bias.requires_grad and bias.is_leaf


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

    def check(self, net: Net) -> None:
        """Refuse another net's optimizer, which would leave this one as it is."""
        own = set(net.parameters())
        if own.isdisjoint(p for group in self.optimizer.param_groups for p in group["params"]):
            raise DualpropError("step: an optimizer that has none of the net's parameters")

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


STEPS: Registry[type[Local]] = Registry("step", {"normalised": Normalised, "centred": Centred, "sgd": SGD})


def chosen(step: WeightStep | torch.optim.Optimizer | str, lr: float | None) -> WeightStep:
    """What moves the weights.

    Args:
        step: a name in `STEPS`, an optimizer of PyTorch's, or the thing itself.
        lr: the rate of the first, 0.3 by default.

    Raises:
        DualpropError: for a rate beside one of the others, or an unknown name.
    """
    if isinstance(step, str):
        return STEPS[step](0.3 if lr is None else lr)
    if lr is not None:
        raise DualpropError(f"lr={lr:g}: the step that is given has a rate of its own")
    return step if isinstance(step, WeightStep) else Gradients(step)
