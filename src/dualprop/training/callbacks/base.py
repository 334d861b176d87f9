"""What a callback is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualprop.training.trainer import Trainer


class Callback:
    """What is done beside learning: at each of these moments the trainer calls all callbacks, in their order.

    A callback overrides the methods of the moments that it cares for. It may read the trainer's attributes and add
    to `trainer.numbers` at the end of an epoch.

    Attributes:
        name: under which checkpoints keep what `state_dict` gives; empty for a callback that keeps nothing.

    Example:
        >>> class Losses(Callback):
        ...     def __init__(self):
        ...         self.seen = []
        ...     def epoch(self, trainer):
        ...         self.seen.append(trainer.numbers["loss"])
    """

    name = ""

    def during(self, trainer: Trainer) -> AbstractContextManager[object]:
        """A context around all that `fit` does."""
        return nullcontext()

    def learning(self, trainer: Trainer) -> AbstractContextManager[object]:
        """A context around all that one batch is learnt by: inference, gradients, the optimizer's steps."""
        return nullcontext()

    def gradients(self, trainer: Trainer) -> None:
        """The gradients of a weight update are in `.grad`, and the optimizer is about to step."""

    def update(self, trainer: Trainer) -> None:
        """The optimizer has stepped."""

    def step(self, trainer: Trainer) -> None:
        """All weight updates on a batch have been made; `trainer.step` and `trainer.batch` count it."""

    def epoch(self, trainer: Trainer) -> None:
        """An epoch is over: `trainer.epoch` counts it, `trainer.numbers` says how it went."""

    def end(self, trainer: Trainer) -> None:
        """The last epoch is over."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here, as tensors in plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
