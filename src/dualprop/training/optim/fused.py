"""Updating each parameter as soon as its gradient exists, so that gradients never add up in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch.nn import Parameter

from dualprop.rules.state import restored, saved


class FusedUpdate:
    """An optimizer for every parameter, which steps and frees the gradient as soon as it has been accumulated.

    It takes the place of one optimizer over all parameters. It acts only inside its `with` block, so that
    gradients can be asked for outside without changing a weight; there a rule adds to each `.grad` once an update.

    Args:
        parameters: those of the net; frozen ones are left alone.
        make: makes the optimizer of a list of parameters.
        before: called with a parameter whose gradient is complete, before its step.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> rule, update = dp.DualProp(net), FusedUpdate(net.parameters(), lambda p: torch.optim.SGD(p, lr=0.1))
        >>> with update:
        ...     step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> {p.grad for p in net.parameters()}
        {None}
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        make: Callable[[list[Parameter]], torch.optim.Optimizer],
        before: Callable[[Parameter], None] = lambda parameter: None,
    ) -> None:
        self._before, self._acts = before, False
        self._optimizers = []
        for parameter in parameters:
            if parameter.requires_grad:
                optimizer = make([parameter])
                self._optimizers.append(optimizer)
                hook = functools.partial(self._update, optimizer)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _update(self, optimizer: torch.optim.Optimizer, parameter: Parameter) -> None:
        if self._acts:
            self._before(parameter)
            optimizer.step()
            parameter.grad = None

    def __enter__(self) -> FusedUpdate:
        self._acts = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._acts = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings of all optimizers, to change the learning rate in."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that every optimizer was made with."""
        return self._optimizers[0].defaults if self._optimizers else {}

    def step(self) -> None:
        """Nothing is left to do: every parameter has had its step."""

    def zero_grad(self) -> None:
        """Nothing is left to clear: every gradient has been freed."""

    def state_dict(self) -> list[Any]:
        """The state of every optimizer, in the order of the parameters."""
        return [saved(optimizer) for optimizer in self._optimizers]

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it belongs to another net.
        """
        restored(self._optimizers, state, "optimizer")


def acting(optimizer: torch.optim.Optimizer | FusedUpdate) -> AbstractContextManager[object]:
    """The context in which gradients are to be accumulated: where there is a `FusedUpdate`, its block."""
    return optimizer if isinstance(optimizer, FusedUpdate) else nullcontext()
