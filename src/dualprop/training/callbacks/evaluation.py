"""What an epoch's weights are worth: validation, the best weights, the test at the end, alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dualprop.arguments import Count, Number, Portion, check
from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.rules.diagnostics import alignment, feedback_cosines
from dualprop.rules.state import astray, restored
from dualprop.training.callbacks.base import Callback
from dualprop.training.meter import TOP

if TYPE_CHECKING:
    from dualprop.training.trainer import Batches, Trainer


@dataclass
class Best:
    """The weights with the best validation accuracy (the lower loss among equals).

    Attributes:
        epoch: after which they were validated.
        numbers: how: loss and accuracies by name.
        weights: by their names in the net.
    """

    epoch: int
    numbers: dict[str, float]
    weights: dict[str, Tensor]

    def better_than(self, other: Best | None) -> bool:
        """Whether these are to be kept instead of `other`."""
        return other is None or self._worth > other._worth

    @property
    def _worth(self) -> tuple[float, float]:
        return self.numbers.get("accuracy", 0.0), -self.numbers["loss"]


class Validation(Callback):
    """Evaluates the weights after each epoch, and keeps the best.

    Args:
        net: whose weights they are.
        batches: what to evaluate on; None keeps the last weights unseen.
        evaluated: a context in which the net has the weights to evaluate, where they are not those that it learns.
    """

    name = "best"

    def __init__(
        self,
        net: Net,
        batches: Batches | None,
        evaluated: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.net, self.batches, self.evaluated = net, batches, evaluated
        self.best: Best | None = None

    def epoch(self, trainer: Trainer) -> None:
        """Validate, if there is something to validate on."""
        if self.batches is not None:
            with self.evaluated():
                numbers = trainer.evaluate(self.batches)
                now = Best(trainer.epoch, numbers, _copied(self.net))
            trainer.numbers |= {f"val_{name}": number for name, number in numbers.items()}
            self.best = now if now.better_than(self.best) else self.best

    def end(self, trainer: Trainer) -> None:
        """Without validation the last weights count as the best."""
        if self.batches is None:
            with self.evaluated():
                self.best = Best(trainer.epoch, {}, _copied(self.net))

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return vars(self.best).copy() if self.best else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if that is another net's, or not what any validation gives.
        """
        self.best = self._checked(state) if check(self.name, state, dict[str, Any]) else None

    def _checked(self, state: Mapping[str, Any]) -> Best:
        names = [f.name for f in fields(Best)]
        if self.batches is None or set(state) != set(names):
            raise DualpropError(f"best: holds {sorted(state)}, but it must hold {names if self.batches else []}")
        epoch = check("best.epoch", state["epoch"], Count)
        numbers = check("best.numbers", state["numbers"], dict[str, Number])
        if "loss" not in numbers or not set(numbers) <= {"loss", *TOP}:
            raise DualpropError(f"best.numbers: holds {sorted(numbers)}, but it must be of loss, {', '.join(TOP)}")
        for name in numbers.keys() & TOP.keys():
            check(f"best.numbers.{name}", numbers[name], Portion)
        weights = restored(_copied(self.net), state["weights"], "best.weights")
        if bad := next(astray(weights, "best.weights"), None):
            raise DualpropError(f"{bad}: NaN or infinite")
        return Best(epoch, numbers, weights)


class FinalTest(Callback):
    """Tests the best weights, once, at the very end; the net has them from then on.

    Args:
        validation: keeps them.
        batches: what to test on.
    """

    def __init__(self, validation: Validation, batches: Batches) -> None:
        self.validation, self.batches = validation, batches

    def end(self, trainer: Trainer) -> None:
        """Test."""
        best = self.validation.best
        assert best is not None, "Validation comes before FinalTest in the list, and has kept some weights"
        trainer.net.load_state_dict(best.weights)
        trainer.numbers = dict(trainer.evaluate(self.batches))


class Alignment(Callback):
    """Compares the rule's gradient with true ones after each epoch, on that epoch's first batch."""

    def epoch(self, trainer: Trainer) -> None:
        """Add cosines and norm ratios for each layer, and the cosines of the net's own feedback weights.

        "own" is the cosine to the rule's own true gradient, where that is not back-propagation's.
        """
        x, y = next(iter(trainer.data.epoch(trainer.epoch - 1)))
        processes = trainer.processes
        found = alignment(trainer.rule, *processes.shard(x, y), processes.average)
        if found.cosine is not None:
            trainer.numbers |= {"cosine": found.cosine, "norm_ratio": found.norm_ratio}
        if found.own is not None and found.own is not found.cosine:
            trainer.numbers["own"] = found.own
        if own := feedback_cosines(trainer.net):
            trainer.numbers["feedback_cosine"] = own


def _copied(net: Net) -> dict[str, Tensor]:
    """The net's weights as they are now."""
    return {name: torch.clone(value.detach()).cpu() for name, value in net.state_dict().items()}
