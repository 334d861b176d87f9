"""The trainer of a run by workers: it waits for them, and at an epoch's end does what every trainer does."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dualprop.arguments import Count, check, check_entries
from dualprop.errors import DivergenceError, DualpropError
from dualprop.rules.state import astray, restored
from dualprop.training.callbacks import Callback
from dualprop.training.trainer import COUNTERS, Trainer
from dualprop.training.workers.crew import JUDGED, Crew


class Sums:
    """What the output layer has judged in an epoch, and that part of it which no record has told yet."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.told, self.untold = dict.fromkeys(JUDGED, 0.0), dict.fromkeys(JUDGED, 0.0)

    def take(self, judged: Mapping[str, float]) -> None:
        """Count more."""
        for name in JUDGED:
            self.untold[name] += judged[name]

    def _numbers(self, sums: Mapping[str, float]) -> dict[str, Any]:
        samples = sums["samples"]
        if not samples:
            return {}
        numbers = {"loss": sums["loss"] / samples}
        if self._classes > 1:
            numbers["accuracy"] = sums["correct"] / samples
        if self._classes > 5:
            numbers["accuracy_top5"] = sums["top5"] / samples
        return numbers

    def tell(self) -> dict[str, Any]:
        """The numbers since this was last asked."""
        numbers = self._numbers(self.untold)
        for name in JUDGED:
            self.told[name], self.untold[name] = self.told[name] + self.untold[name], 0.0
        return numbers

    def numbers(self) -> dict[str, Any]:
        """Those of the epoch so far."""
        return self._numbers({name: self.told[name] + self.untold[name] for name in JUDGED})

    @property
    def samples(self) -> float:
        """How many have been judged in the epoch."""
        return self.told["samples"] + self.untold["samples"]

    def clear(self) -> None:
        """Begin anew."""
        self.told, self.untold = dict.fromkeys(JUDGED, 0.0), dict.fromkeys(JUDGED, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Both parts."""
        return {"told": dict(self.told), "untold": dict(self.untold)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        own = self.state_dict()
        taken = restored(own, state, "meter")
        if bad := next(astray(taken, "meter"), None):
            raise DualpropError(f"{bad}: NaN or infinite")
        self.told, self.untold = taken["told"], taken["untold"]


class WorkersTrainer(Trainer):
    """A trainer whose batches are learnt by workers.

    Args:
        base: the trainer of the same experiment, whose parts it takes over.
        crew: the workers.
        classes: of the data.
    """

    def __init__(self, base: Trainer, crew: Crew, classes: int) -> None:
        super().__init__(
            base.net, base.rule, base.optimizer, base.data, [Started(crew), *base.callbacks], rate=base.rate
        )
        self.crew = crew
        self.meter: Any = Sums(classes)

    def fit(self, epochs: int) -> dict[str, Any]:
        """See `Trainer.fit`."""
        self.crew.total = check("epochs", epochs, Count) * len(self.data)
        return super().fit(epochs)

    def _train_epoch(self) -> None:
        """The batches of this epoch that are left, and its numbers."""
        begun, before, length = time.perf_counter(), self.epoch_seconds, len(self.data)
        for judged in self.crew.run((self.epoch + 1) * length):
            self.meter.take(judged)
            self.step = max(self.step, min(self.crew.batch, (self.epoch + 1) * length))
            self.batch = self.step - self.epoch * length
            self.epoch_seconds = before + time.perf_counter() - begun
            if self.rate is not None:
                self.lr = self.rate(self.step / length)
            for callback in self.callbacks:
                callback.step(self)
        self.step = (self.epoch + 1) * length
        self.crew.give(self.net)
        self.check_weights()
        numbers = {**self.so_far(), "seconds": self.epoch_seconds}
        self.numbers = {"loss": math.nan, **numbers}
        self.epoch, self.batch = self.epoch + 1, 0
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        self.meter.clear()

    def so_far(self) -> dict[str, Any]:
        """Loss, accuracy, speed and what became of messages."""
        speed = self.meter.samples / self.epoch_seconds if self.epoch_seconds else 0.0
        return {**self.meter.numbers(), "images_per_second": speed, "measures": self.measures()}

    def measures(self) -> dict[str, float]:
        """What all workers have done, how stale the first is, how busy all are, how much the slowest takes on."""
        lines, time = self.crew.lines, self.crew.time
        counts = {
            name: float(sum(line.counts.get(name, 0) for line in lines))
            for name in ("updates", "skipped", "late", "doubled", "refused")
        }
        return {
            **counts,
            "lost": float(self.crew.lost),
            "staleness": lines[0].staleness,
            "busy": sum(line.busy for line in lines) / len(lines),
            "share": min(line.share for line in lines),
            **({} if time is None else {"virtual_seconds": time}),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse workers that have gone astray."""
        if place := next(astray(state["workers"], "workers"), None):
            raise DivergenceError(f"{place} is NaN or infinite")

    def state_dict(self) -> dict[str, Any]:
        """The workers' state, counters, and what the callbacks keep."""
        return {
            "workers": self.crew.state_dict(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "meter": self.meter.state_dict(),
            **{callback.name: callback.state_dict() for callback in self.callbacks if callback.name},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it belongs to another run.
        """
        check("state", state, Mapping[str, Any])
        names = ["workers", "counters", "meter", *(callback.name for callback in self.callbacks if callback.name)]
        if set(state) != set(names):
            raise DualpropError(f"state: holds {sorted(state)}, but these workers keep {sorted(names)}")
        check_entries(state, {"meter": dict[str, Any], "workers": dict[str, Any]})
        self._count(state["counters"])
        self.crew.load_state_dict(state["workers"])
        self.check_state(state)
        self.meter.load_state_dict(state["meter"])
        for callback in self.callbacks:
            if callback.name:
                callback.load_state_dict(state[callback.name])


class Started(Callback):
    """The workers are there while the trainer trains, and no longer.

    Args:
        crew: the workers.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    @contextmanager
    def during(self, trainer: Trainer) -> Iterator[None]:
        """They are there."""
        with self._crew:
            yield
