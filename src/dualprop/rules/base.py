"""What every learning rule is: bound to a net at construction, it turns a batch into gradients."""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dualprop.engines.dyads.states import DyadicState, Nudge
from dualprop.errors import DualpropError, check_type
from dualprop.nets.losses import LOSSES, Loss
from dualprop.nets.net import Net


@dataclass(frozen=True)
class Step:
    """What one call of `Rule.backward` saw.

    Attributes:
        loss: the batch's mean loss at `output`, a tensor without dimensions.
        output: what the net said before the target touched it, shape (B, ...). For a rule whose states settle
            under the target's influence (random, parallel or repeated updates), f_L(a_L) at the last one.
        products: matrix products that inference made, as far as the rule counts them (the gradient's own not
            counted).
        measures: what else the rule can say of its inference on this batch, numbers by name: the steps that a
            phase took, the residual that it left.
    """

    loss: Tensor
    output: Tensor
    products: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)


class Rule(ABC):
    """A method that adds gradients to the `.grad` of a net's parameters.

    A new rule implements `updates` and, if it keeps anything from batch to batch, `state_dict` and
    `load_state_dict`. One line in `dualprop.RULES` gives it a name.

    Args:
        net: the net to train. Its parameters are read at every call; the rule holds no copies.
        loss: a name in `LOSSES` or a `Loss`.
    """

    def __init__(self, net: Net, *, loss: Loss | str = "mse") -> None:
        check_type("net", net, Net)
        self.net = net
        self._out_shapes: dict[tuple[int, ...], tuple[int, ...]] = {}  # by the input's
        self._dtype_of = next(net.parameters(), None)  # bound at construction, as an optimizer's parameters are
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        check_type("loss", self.loss, Loss)

    @abstractmethod
    def updates(self, x: Tensor, y: Tensor) -> Iterator[Step]:
        """The weight updates on one batch: what a new rule implements.

        Adds the batch mean of the gradient to `.grad` and yields, once for each time the optimizer is to step.
        Does not leave `torch.no_grad` or another context open while it yields.

        Args:
            x: inputs, checked, shape (B, ...).
            y: encoded targets, floats of the output's shape.
        """

    def iterate(self, x: Tensor, y: Tensor) -> Iterator[Step]:
        """The weight updates that the method makes on one batch: one item each, gradients ready in `.grad`.

        Args:
            x: inputs, shape (B, ...), finite floats of the parameters' type.
            y: class indices (B,) in int64, or float targets of the output's shape.

        Returns:
            An iterator; the caller steps its optimizer and clears the gradients between items.

        Raises:
            DualpropError: for a batch that the net or the loss cannot take, before anything is computed.

        Example:
            >>> import torch, dualprop as dp
            >>> net = dp.nets.mlp([4, 8, 3])
            >>> rule, opt = dp.RULES["ms-dp"](net), torch.optim.SGD(net.parameters(), lr=0.1)
            >>> for step in rule.iterate(torch.randn(5, 4), torch.randint(3, (5,))):
            ...     opt.step()
            ...     opt.zero_grad()
        """
        return self.updates(*self._checked(x, y))

    def backward(self, x: Tensor, y: Tensor) -> Step:
        """Add the batch mean of the gradient to `.grad`: the first round of `iterate`, with its arguments."""
        return next(self.iterate(x, y))

    def predict(self, x: Tensor) -> Tensor:
        """The method's own inference without a target: here net(x), the feed-forward pass, without a graph.

        Raises:
            DualpropError: for inputs that the net cannot take.
        """
        x = self._checked_x(x)
        torch.clear_autocast_cache()  # an optimizer may have changed the weights inside one autocast context
        with torch.no_grad():
            output: Tensor = self.net(x)
        return output

    @torch.no_grad()
    def infer(self, x: Tensor, y: Tensor) -> DyadicState:
        """The states that the next `backward` would learn from: here the feed-forward activities, un-nudged.

        Args:
            x: inputs, shape (B, ...).
            y: class indices (B,) or float targets of the output's shape.
        """
        x, _ = self._checked(x, y)
        states = [x]
        for layer in self.net.chain:
            states.append(layer(states[-1]))
        return DyadicState(tuple(states), tuple(states), Nudge(0.5, (1.0,) * len(self.net)))

    def gradients(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The gradients that `backward` would add, by parameter name; changes neither `.grad` nor the rule."""
        kept = copy.deepcopy(self.state_dict())
        saved = [(p, p.grad) for p in self.net.parameters()]
        try:
            for p, _ in saved:
                p.grad = None
            self.backward(x, y)
            return {n: p.grad for n, p in self.net.named_parameters() if p.grad is not None}
        finally:
            for p, grad in saved:
                p.grad = grad
            self.load_state_dict(kept)

    def plain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that this rule was made with as JSON holds them, from which the same rule is made again.

        Raises:
            DualpropError: for one that JSON cannot hold.
        """
        try:
            plain: dict[str, Any] = json.loads(json.dumps(dict(settings), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise DualpropError(f"settings: cannot be recorded ({error}); give numbers, words or lists") from None
        return plain

    def compile(self) -> None:
        """Let torch.compile fuse what it can, from the next batch on: here the net's own forward pass."""
        self.net.compile()

    def state_dict(self) -> dict[str, Any]:
        """What the rule keeps from batch to batch, as tensors in plain containers; empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it is another rule's.
        """
        self._same_keys(state)

    def _same_keys(self, state: Mapping[str, Any]) -> None:
        check_type("state", state, dict)
        if set(state) != set(self.state_dict()):
            raise DualpropError(f"state: holds {sorted(state)}, but this rule keeps {sorted(self.state_dict())}")

    def _checked(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The batch, detached, with encoded targets; or an error."""
        x = self._checked_x(x)
        check_type("y", y, Tensor)
        shape = self._out_shapes[tuple(x.shape[1:])]
        return x, self.loss.encode(y.detach(), torch.Size((len(x), *shape)), x.dtype)

    def _checked_x(self, x: Tensor) -> Tensor:
        """The inputs, detached; or an error."""
        check_type("x", x, Tensor)
        x = x.detach()
        if x.ndim < 2 or not len(x):
            raise DualpropError(f"x: shape {tuple(x.shape)}, but it must be (batch, ...) with at least one sample")
        dtype = x.dtype if self._dtype_of is None else self._dtype_of.dtype
        if x.dtype != dtype or not dtype.is_floating_point:
            raise DualpropError(f"x: type {x.dtype}, but the net's parameters are {dtype}")
        in_shape = tuple(x.shape[1:])
        if in_shape not in self._out_shapes:
            self._out_shapes[in_shape] = self.net.shapes(in_shape)[-1]
        if not all(map(math.isfinite, torch.aminmax(x))):  # one pass; isfinite().all() takes ten times as long
            raise DualpropError("x: NaN or infinite inputs")
        return x
