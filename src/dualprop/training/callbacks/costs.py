"""What hardware would pay for learning, measured while a run learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualprop.nets.devices import Energy, Trace
from dualprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class Costs(Callback):
    """Adds what every batch has cost to what is measured: see `dualprop.devices.Trace.by_sample`.

    Validation, tests and the comparison of gradients are not counted, for they are no part of learning.

    Args:
        energy: of each thing.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> batches = [(torch.randn(5, 4), torch.randint(3, (5,)))]
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> trainer = dp.Trainer(net, dp.DualProp(net), optimizer, batches, [Costs()])
        >>> trainer.fit(1)["measures"]["multiply_adds"]
        80.0
    """

    def __init__(self, energy: Energy | None = None) -> None:
        self.energy = energy

    @contextmanager
    def learning(self, trainer: Trainer) -> Iterator[None]:
        """A trace of the batch."""
        with Trace(trainer.net) as self._trace:
            yield

    def step(self, trainer: Trainer) -> None:
        """The batch's numbers beside what the rule has measured of it."""
        assert trainer.last is not None
        _, ours = trainer.processes.shard(*trainer.last)
        trainer.meter.also(self._trace.by_sample(len(ours), self.energy))
