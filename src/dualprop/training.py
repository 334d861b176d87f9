"""Training: the loop over batches and epochs, its checkpoints, and the one test at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualprop.data import Batches
from dualprop.diagnostics import alignment, feedback_cosines, first_nonfinite
from dualprop.errors import CheckpointError, DivergenceError, Interrupted
from dualprop.experiment import Experiment, build, build_net
from dualprop.interrupt import Interrupt
from dualprop.meter import Meter
from dualprop.net import Net
from dualprop.optim import LR_SCHEDULES
from dualprop.progress import Lines, display
from dualprop.recorder import Recorder
from dualprop.rules import Step
from dualprop.runs import Run, check_free, write_json
from dualprop.settings import Settings

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
        """Weights, optimizer, rule, random state, counters and meters."""
        e = self.experiment
        return {
            "net": e.net.state_dict(),
            "optimizer": e.optimizer.state_dict(),
            "average": e.average.state_dict() if e.average else None,
            "rule": e.rule.state_dict(),
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
            e.rule.load_state_dict(state["rule"])
            torch.set_rng_state(state["rng"])
            for name in COUNTERS:
                setattr(self, name, state["counters"][name])
            self.recent, self.whole = Meter(**state["recent"]), Meter(**state["whole"])
            self.best = Best(**state["best"]) if state["best"] else None
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{source}: not a checkpoint of this run ({reason[:200]})") from None

    def fit(self, run: Run) -> Result:
        """Train the epochs that are left, test once, and write the result.

        Raises:
            DivergenceError: if the loss or a weight becomes NaN or infinite.
            Interrupted: on Ctrl-C or SIGTERM, after a checkpoint has been saved.
        """
        s = self.settings
        title = f"{s.rule} on {s.data}, seed {s.seed}"
        with Interrupt() as interrupt, Recorder(run, self.step) as recorder, display(title, s.epochs) as shown:
            while self.epoch < s.epochs:
                self._train_epoch(run, recorder, shown, interrupt)
                numbers = self._close_epoch(recorder, run)
                shown.epoch(self.epoch, numbers)
                if interrupt.asked and self.epoch < s.epochs:
                    raise self._interrupted(run)
            return self._finish(run, recorder)

    def _train_epoch(self, run: Run, recorder: Recorder, shown: Lines, interrupt: Interrupt) -> None:
        """The batches of this epoch that are left."""
        e, s = self.experiment, self.settings
        begun = saved = time.perf_counter()
        before = self.epoch_seconds
        for x, y in e.train.epoch(self.epoch, self.batch):
            lr = self.learning_rate(s, self.epoch + self.batch / len(e.train))
            loss, step = self._train_batch(x, y, lr, run)
            self.batch += 1
            self.step += 1
            self.recent.add(loss, step.output, y)
            now = time.perf_counter()
            self.epoch_seconds = before + now - begun
            shown.step(self.epoch + 1, self.batch, len(e.train), self._so_far)
            if self.step % s.log_every == 0:
                recorder.record("train", self.step, epoch=self.epoch + 1, lr=lr, **self.recent.means())
                self.whole, self.recent = self.whole + self.recent, Meter()
            if self.batch == len(e.train):
                break  # the epoch's own checkpoint follows its validation
            if interrupt.asked or now - saved >= s.checkpoint_every:
                self._save(run, x, y)
                saved = time.perf_counter()
            if interrupt.asked:
                raise self._interrupted(run)

    def _interrupted(self, run: Run) -> Interrupted:
        return Interrupted(f"stopped after step {self.step}; go on with: dualprop train --resume {run.path}")

    def _so_far(self) -> dict[str, float]:
        """Loss, accuracy and speed in this epoch."""
        meter = self.whole + self.recent
        return {**meter.means(), "images_per_second": meter.samples / self.epoch_seconds}

    def _train_batch(self, x: Tensor, y: Tensor, lr: float, run: Run) -> tuple[float, Step]:
        """Every weight update that the rule makes on one batch; the loss and outputs before the first."""
        e = self.experiment
        for group in e.optimizer.param_groups:
            group["lr"] = lr
        first = None
        with e.autocast(), e.updating():
            for step in e.rule.iterate(x, y):
                if first is None:
                    loss, first = float(step.loss), step
                    if not math.isfinite(loss):
                        raise self._diverged(f"the loss became {loss}", self.step + 1, run, x, y)
                if self.settings.clip_norm:
                    torch.nn.utils.clip_grad_norm_(e.net.parameters(), self.settings.clip_norm)
                e.optimizer.step()
                e.optimizer.zero_grad()
                if e.average:
                    e.average.update()
        assert first is not None, "a rule yields at least once per batch"
        return loss, first

    def _close_epoch(self, recorder: Recorder, run: Run) -> dict[str, Any]:
        """Validate, compare gradients, record and save; returns the epoch's numbers."""
        e = self.experiment
        numbers: dict[str, Any] = {**self._so_far(), "seconds": self.epoch_seconds}
        if e.validation is not None:
            with e.evaluated():
                loss, accuracy = self.evaluate(e.validation)
                now = Best(self.epoch + 1, accuracy, loss, _copied(e.net))
            numbers |= {"val_loss": loss, "val_accuracy": accuracy}
            improved = now.better_than(self.best)
            self.best = now if improved else self.best
        x, y = next(e.train.epoch(self.epoch))
        if self.settings.alignment:
            cosine, norm_ratio = alignment(e.rule, x, y)
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
        write_json(run.path / "result.json", asdict(result))
        return result

    def evaluate(self, batches: Batches) -> tuple[float, float]:
        """Mean loss and accuracy of the rule's predictions."""
        e, meter = self.experiment, Meter()
        for x, y in batches:
            with e.autocast():
                output = e.rule.predict(x)
            output = output.to(x.dtype)
            loss = e.loss.value(output, e.loss.encode(y, output.shape, output.dtype)).mean()
            meter.add(float(loss), output, y)
        means = meter.means()
        return means["loss"], means["accuracy"]

    def _save(self, run: Run, x: Tensor, y: Tensor) -> None:
        """Save a checkpoint, unless the weights have gone astray: the last good one stays."""
        if not all(bool(torch.isfinite(p).all()) for p in self.experiment.net.parameters()):
            raise self._diverged("a weight became NaN or infinite", self.step, run, x, y)
        run.save(self.state_dict())

    def _save_best(self, run: Run) -> None:
        assert self.best is not None
        run.save_weights("best.safetensors", self.best.weights, epoch=self.best.epoch)

    def _diverged(self, what: str, step: int, run: Run, x: Tensor, y: Tensor) -> DivergenceError:
        where = first_nonfinite(self.experiment.rule, x, y)
        good = run.load()["counters"]["step"]
        return DivergenceError(
            f"{what} at step {step} (epoch {self.epoch + 1}), first in {where}; "
            f"the last good checkpoint is {run.path / 'checkpoint.pt'}, of step {good}"
        )


def _copied(net: Net) -> dict[str, Tensor]:
    """The net's weights as they are now."""
    return {name: value.detach().clone().cpu() for name, value in net.state_dict().items()}


def train(settings: Settings, run: str | Path) -> Result:
    """Train a net and write everything about it into a new run folder.

    Args:
        settings: what to train, on what, how.
        run: the folder to make; it must not exist.

    Returns:
        The test result of the weights with the best validation accuracy.

    Raises:
        DualpropError: for whatever is wrong with the settings, the data or the folder, before it is made.
        DivergenceError: if the loss or a weight becomes NaN or infinite.
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint has been saved.

    Example:
        >>> import tempfile, dualprop as dp
        >>> settings = dp.Settings(rule="dp", data="digits", hidden=(64,), epochs=3, lr=0.01)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dp.train(settings, folder + "/run").test_accuracy > 0.8
        True
    """
    path = Path(run)
    check_free(path)
    torch.manual_seed(settings.seed)  # for rules and losses that draw from torch's global generator
    trainer = Trainer(build(settings))
    return trainer.fit(Run.create(path, settings, trainer.state_dict()))


def resume(run: str | Path, changes: Mapping[str, Any] | None = None) -> Result:
    """Continue a run from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        run: the run folder.
        changes: settings that do not change what is computed, for example `data_root`.

    Returns:
        The result; at once if the run is finished.

    Raises:
        DualpropError: for a folder, checkpoint or setting that does not belong to the run.
    """
    opened = Run.open(Path(run))
    settings = opened.settings.replaced(changes or {})
    if (finished := opened.result) is not None:
        try:
            return Result(**finished)
        except TypeError as error:
            raise CheckpointError(f"{opened.path / 'result.json'}: damaged ({error})") from None
    checkpoint = opened.load()
    trainer = Trainer(build(settings))
    trainer.load_state_dict(checkpoint, opened.path / "checkpoint.pt")
    return trainer.fit(opened)


def load_net(run: str | Path) -> Net:
    """The net of a run with its best weights.

    Raises:
        DualpropError: if the folder is no run, or its weights are missing, damaged or another net's.
    """
    from dualprop import data

    opened = Run.open(Path(run))
    settings = opened.settings
    net = build_net(settings, data.load(settings.data, settings.data_root, settings.image_size))
    try:
        net.load_state_dict(opened.load_weights("best.safetensors"))
    except RuntimeError as error:
        raise CheckpointError(f"{opened.path}: weights of another net ({' '.join(str(error).split())})") from None
    return net
