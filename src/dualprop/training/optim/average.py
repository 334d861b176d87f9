"""The exponential moving average of a net's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.rules.state import astray, restored, saved
from dualprop.training.callbacks.base import Callback


class Average(Callback):
    """w̄ ← decay · w̄ + (1 - decay) · w after every update; w̄ = w after the first.

    Args:
        net: whose weights w are averaged.
        decay: in [0, 1).

    Example:
        >>> import dualprop as dp
        >>> net = dp.nets.mlp([4, 3])
        >>> average = Average(net, 0.5)
        >>> for value in (0.0, 1.0):
        ...     _ = net.chain[0].synapse.bias.data.fill_(value)
        ...     average.update()
        >>> with average.in_place():
        ...     net.chain[0].synapse.bias.tolist()
        [0.5, 0.5, 0.5]
        >>> net.chain[0].synapse.bias.tolist()
        [1.0, 1.0, 1.0]
    """

    name = "average"

    def __init__(self, net: Net, decay: float) -> None:
        self.net = net
        step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._model = AveragedModel(net, multi_avg_fn=step)

    def update(self, trainer: object = None) -> None:
        """Take the net's weights into the average."""
        self._model.update_parameters(self.net)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The net with its averaged weights, for as long as the context lasts."""
        own = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self._model.module.state_dict())
        try:
            yield
        finally:
            self.net.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and how many updates there were."""
        state: dict[str, Any] = saved(self._model)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it belongs to another net, or holds a number that no average can.
        """
        restored(self._model, state, self.name)
        if bad := next(astray(saved(self._model), self.name), None):
            raise DualpropError(f"{bad}: NaN or infinite")
        if int(self._model.n_averaged) < 0:
            raise DualpropError(
                f"{self.name}.n_averaged: {int(self._model.n_averaged)}, but it must be at least 0"
            )
