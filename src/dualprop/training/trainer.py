"""The trainer: the loop over batches and epochs, its checkpoints, and the one test at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualprop.data import Batches
from dualprop.errors import CheckpointError, DivergenceError, Interrupted
from dualprop.nets.net import Net
from dualprop.rules.diagnostics import alignment, feedback_cosines, first_nonfinite
from dualprop.runs.folder import Run
from dualprop.runs.recorder import Recorder
from dualprop.training.display import Silence, display
from dualprop.training.experiment import Experiment
from dualprop.training.interrupt import Interrupt
from dualprop.training.meter import Means, Meter
from dualprop.training.optim.optimizers import LR_SCHEDULES, set_lr

COUNTERS = ("epoch", "batch", "step", "epoch_seconds", "seconds")


@dataclass
class Best:
    """The weights with the best validation accuracy (the lower loss among equals)."""

    epoch: int
    val_accuracy: float
    val_loss: float
    weights: dict[str, Tensor]

    def better_than(self, other: Best | None) -> bool:
        """Whether these are to be kept instead of `other`."""
        return other is None or (self.val_accuracy, -self.val_loss) > (other.val_accuracy, -other.val_loss)


@dataclass(frozen=True)
class Result:
    """How a finished run went.

    Attributes:
        run: its folder.
        test_accuracy: of the best-validation weights on the test data, in [0, 1].
        test_loss: their mean loss there.
        best_epoch: the epoch that they come from, the last one if nothing was held out.
        val_accuracy: their accuracy on the validation data, None without any.
        seconds_per_epoch: mean wall time of the training part of an epoch.
    """

    run: str
    test_accuracy: float
    test_loss: float
    best_epoch: int
    val_accuracy: float | None
    seconds_per_epoch: float


class Trainer:
    """Trains one experiment to its end; `state_dict` is all it needs to go on from where it is."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.settings = experiment.settings
        self.learning_rate = LR_SCHEDULES[self.settings.lr_schedule]
        self.epoch = self.batch = self.step = 0
        self.recent, self.whole = Meter(), Meter()  # since the last record, and before that in this epoch
        self.epoch_seconds = self.seconds = 0.0  # of this epoch so far, and of the epochs before it
        self.best: Best | None = None

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, rule (in every process), random state, counters and meters."""
        e = self.experiment
        return {
            "net": e.net.state_dict(),
            "optimizer": e.optimizer.state_dict(),
            "average": e.average.state_dict() if e.average else None,
            "rule": e.processes.gathered(e.rule.state_dict()),
            "rng": torch.get_rng_state(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "recent": self.recent.state_dict(),
            "whole": self.whole.state_dict(),
            "best": vars(self.best).copy() if self.best else None,
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Take back what `state_dict` gave.

        Raises:
            CheckpointError: if it belongs to another net or rule; `source` is named.
        """
        e = self.experiment
        try:
            e.net.load_state_dict(state["net"])
            e.optimizer.load_state_dict(state["optimizer"])
            if e.average:
                e.average.load_state_dict(state["average"])
            if len(state["rule"]) != e.processes.count:
                raise ValueError(f"made by {len(state['rule'])} processes, and here are {e.processes.count}")
            e.rule.load_state_dict(state["rule"][e.processes.rank])
            torch.set_rng_state(state["rng"])
            for name in COUNTERS:
                setattr(self, name, type(getattr(self, name))(state["counters"][name]))
            self.recent, self.whole = (_meter(**state[name]) for name in ("recent", "whole"))
            self.best = _best(**state["best"]) if state["best"] else None
            if self.best and _shapes(self.best.weights) != _shapes(e.net.state_dict()):
                raise ValueError("best.weights are another net's")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{source}: not a checkpoint of this run ({reason[:200]})") from None

    def fit(self, run: Run) -> Result:
        """Train the epochs that are left, test once, and write the result.

        Raises:
            DivergenceError: if the loss or a weight becomes NaN or infinite, or the rule's inference diverges.
            Interrupted: on Ctrl-C or SIGTERM, after a checkpoint has been saved.
        """
        s = self.settings
        title = f"{s.rule} on {s.data}, seed {s.seed}"
        processes = self.experiment.processes
        shown = display(title, s.epochs, processes.leads)
        with Interrupt() as interrupt, Recorder(run, self.step) as recorder, shown, self._located(run):
            while self.epoch < s.epochs:
                self._train_epoch(run, recorder, shown, interrupt)
                numbers = self._close_epoch(recorder, run)
                shown.epoch(self.epoch, numbers)
                (asked,) = processes.any(interrupt.asked)
                if asked and self.epoch < s.epochs:
                    raise self._interrupted(run)
            return self._finish(run, recorder)

    def _train_epoch(self, run: Run, recorder: Recorder, shown: Silence, interrupt: Interrupt) -> None:
        """The batches of this epoch that are left."""
        e, s = self.experiment, self.settings
        begun = saved = time.perf_counter()
        before = self.epoch_seconds
        for x, y in e.train.epoch(self.epoch, self.batch):
            lr = self.learning_rate(s, self.epoch + self.batch / len(e.train))
            self.batch += 1
            self.step += 1
            loss, output, measures = self._train_batch(x, y, lr)
            self.recent.add(loss, output, y, measures)
            now = time.perf_counter()
            self.epoch_seconds = before + now - begun
            shown.step(self.epoch + 1, self.batch, len(e.train), self._so_far)
            if self.step % s.log_every == 0:
                means: dict[str, Any] = {**self.recent.means(), **_measures(self.recent)}
                recorder.record("train", self.step, epoch=self.epoch + 1, lr=lr, **means)
                self.whole, self.recent = self.whole + self.recent, Meter()
            if self.batch == len(e.train):
                break  # the epoch's own checkpoint follows its validation
            due = e.processes.leads and now - saved >= s.checkpoint_every  # clocks differ
            asked, due = e.processes.any(interrupt.asked, due)
            if asked or due:
                self._save(run, x, y)
                saved = time.perf_counter()
            if asked:
                raise self._interrupted(run)

    def _interrupted(self, run: Run) -> Interrupted:
        return Interrupted(f"stopped after step {self.step}; go on with: dualprop train --resume {run.path}")

    def _so_far(self) -> dict[str, float]:
        """Loss, accuracy and speed in this epoch."""
        meter = self.whole + self.recent
        return {**meter.means(), "images_per_second": meter.samples / self.epoch_seconds}

    def _train_batch(self, x: Tensor, y: Tensor, lr: float) -> tuple[float, Tensor, dict[str, float]]:
        """Every weight update that the rule makes on one batch.

        Returns:
            The loss and outputs before the first update, and by name the means over the updates of what the rule
            measures (in this process), with the matrix products that it counts, all together, as "products".
        """
        e = self.experiment
        part_x, part_y = e.processes.part(x, y)
        set_lr(e.optimizer.param_groups, lr)
        output, own, products = None, Means(), 0
        with e.autocast(), e.updating():
            for step in e.rule.iterate(part_x, part_y):
                own.add(step.measures)
                products += step.products
                if output is None:
                    loss, output = e.processes.mean(float(step.loss)), step.output
                    if not math.isfinite(loss):
                        raise DivergenceError(f"the loss became {loss}, {self._where(x, y)}")
                e.processes.average_gradients(e.net.parameters())
                if self.settings.clip_norm:
                    torch.nn.utils.clip_grad_norm_(e.net.parameters(), self.settings.clip_norm)
                e.optimizer.step()
                e.optimizer.zero_grad()
                if e.average:
                    e.average.update()
        assert output is not None, "a rule yields at least once per batch"
        measures = own() | ({"products": float(products)} if products else {})
        return loss, e.processes.whole(output, len(y)), measures

    def _close_epoch(self, recorder: Recorder, run: Run) -> dict[str, Any]:
        """Validate, compare gradients, record and save; returns the epoch's numbers."""
        e = self.experiment
        numbers: dict[str, Any] = {**self._so_far(), "seconds": self.epoch_seconds}
        numbers |= _measures(self.whole + self.recent)
        if e.validation is not None:
            with e.evaluated():
                loss, accuracy = self.evaluate(e.validation)
                now = Best(self.epoch + 1, accuracy, loss, _copied(e.net))
            numbers |= {"val_loss": loss, "val_accuracy": accuracy}
            improved = now.better_than(self.best)
            self.best = now if improved else self.best
        x, y = next(e.train.epoch(self.epoch))
        if self.settings.alignment:
            cosine, norm_ratio = alignment(e.rule, *e.processes.part(x, y), e.processes.average)
            numbers |= {"cosine": cosine, "norm_ratio": norm_ratio}
            if own := feedback_cosines(e.net):
                numbers["feedback_cosine"] = own
        recorder.record("epoch", self.step, epoch=self.epoch + 1, **numbers)
        self.epoch, self.batch = self.epoch + 1, 0
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        self.recent, self.whole = Meter(), Meter()
        self._save(run, x, y)
        if e.validation is not None and improved:
            self._save_best(run)
        return numbers

    def _finish(self, run: Run, recorder: Recorder) -> Result:
        """Test the best weights, once."""
        e = self.experiment
        if self.best is None:
            with e.evaluated():
                self.best = Best(self.epoch, math.nan, math.nan, _copied(e.net))
        e.net.load_state_dict(self.best.weights)
        loss, accuracy = self.evaluate(e.test)
        recorder.record("test", self.step, epoch=self.best.epoch, loss=loss, accuracy=accuracy)
        self._save_best(run)
        val_accuracy = self.best.val_accuracy if e.validation is not None else None
        result = Result(
            str(run.path), accuracy, loss, self.best.epoch, val_accuracy, self.seconds / self.settings.epochs
        )
        run.finish(asdict(result))
        return result

    def evaluate(self, batches: Batches) -> tuple[float, float]:
        """Mean loss and accuracy of the rule's predictions."""
        e, meter = self.experiment, Meter()
        for x, y in batches:
            with e.autocast():
                output = e.rule.predict(e.processes.part(x, y)[0])
            output = e.processes.whole(output.to(x.dtype), len(y))
            loss = e.loss.value(output, e.loss.encode(y, output.shape, output.dtype)).mean()
            meter.add(float(loss), output, y)
        means = meter.means()
        return means["loss"], means["accuracy"]

    def _save(self, run: Run, x: Tensor, y: Tensor) -> None:
        """Save a checkpoint, unless the weights have gone astray: the last good one stays."""
        if not all(bool(torch.isfinite(p).all()) for p in self.experiment.net.parameters()):
            raise DivergenceError(f"a weight became NaN or infinite, {self._where(x, y)}")
        run.save(self.state_dict())

    def _save_best(self, run: Run) -> None:
        assert self.best is not None
        dataset = self.experiment.dataset
        notes = {"in_shape": list(dataset.in_shape), "num_classes": dataset.num_classes}
        run.save_weights("best.safetensors", self.best.weights, epoch=self.best.epoch, **notes)

    def _where(self, x: Tensor, y: Tensor) -> str:
        """Where the numbers went astray, or what the inference that is to show it says."""
        try:
            return f"first in {first_nonfinite(self.experiment.rule, x, y)}"
        except DivergenceError as error:
            return str(error)

    @contextmanager
    def _located(self, run: Run) -> Iterator[None]:
        """In which what diverges is told with the step and the last good checkpoint."""
        try:
            yield
        except DivergenceError as error:
            good = run.load()["counters"]["step"]
            epoch = min(self.epoch + 1, self.settings.epochs)  # the test follows the last
            raise DivergenceError(
                f"at step {self.step} (epoch {epoch}) {error}; "
                f"the last good checkpoint is {run.path / 'checkpoint.pt'}, of step {good}"
            ) from None


def _measures(meter: Meter) -> dict[str, dict[str, float]]:
    """What a record says of the rule's measures, nothing where it has none."""
    means = meter.measures()
    return {"measures": means} if means else {}


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


def _meter(
    loss: float, correct: int, samples: int, measured: Mapping[str, tuple[float, int]] | None = None
) -> Meter:
    """A meter of numbers, whatever a checkpoint that was edited says; older ones have no measures."""
    own = {str(name): (float(total), int(count)) for name, (total, count) in (measured or {}).items()}
    return Meter(float(loss), int(correct), int(samples), own)


def _best(epoch: int, val_accuracy: float, val_loss: float, weights: dict[str, Tensor]) -> Best:
    """Likewise."""
    return Best(int(epoch), float(val_accuracy), float(val_loss), weights)


def _copied(net: Net) -> dict[str, Tensor]:
    """The net's weights as they are now."""
    return {name: value.detach().clone().cpu() for name, value in net.state_dict().items()}
