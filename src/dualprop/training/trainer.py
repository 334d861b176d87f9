"""The trainer: the loop over epochs, batches and weight updates. All else that a run does are its callbacks."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualprop.arguments import Count, CountOrZero, NotNegative, check
from dualprop.data import batched, own_part
from dualprop.errors import DivergenceError, DualpropError
from dualprop.nets.net import Inputs, Net
from dualprop.rules import Rule
from dualprop.rules.batch import in_order, pair_of
from dualprop.rules.diagnostics import first_nonfinite
from dualprop.rules.state import astray, restored, saved
from dualprop.training.callbacks.base import Callback
from dualprop.training.means import Means
from dualprop.training.meter import Meter, Tally
from dualprop.training.optim.fused import FusedUpdate, acting
from dualprop.training.optim.optimizers import set_lr
from dualprop.training.processes.group import Alone
from dualprop.training.repeated import Repeated

COUNTERS: dict[str, Any] = {
    "epoch": CountOrZero,
    "batch": CountOrZero,
    "step": CountOrZero,
    "epoch_seconds": NotNegative,
    "seconds": NotNegative,
    "first_loss": NotNegative | None,
}
"""What a trainer counts, and what each may be."""

STATE = ("net", "optimizer", "rule", "rng", "counters", "meter")
"""What its own parts are called in its state."""

EXPLODED = 1e8
"""Times the first batch's loss (or times 1, where that is less): what has grown so far does not come back."""

Batch = tuple[Inputs, Tensor]
Batches = Iterable[Batch]


class Epochs(Protocol):
    """Batches by epoch, as `dualprop.data.Batches` has them."""

    def __len__(self) -> int:
        """The batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterable[Batch]:
        """The batches of an epoch from number `start` on, both counted from 0."""


def _epochs(data: Any, batch_size: int, net: Net) -> Epochs:
    """Batches by epoch of whatever a trainer takes."""
    if hasattr(data, "epoch"):
        epochs: Epochs = data
        return epochs
    arrays = isinstance(data, tuple) and len(data) == 2 and all(hasattr(array, "dtype") for array in data)
    if arrays or isinstance(data, Dataset):
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        return batched(own_part(data), batch_size, seed=0, device=device)
    return Repeated(data)


class Trainer:
    """Trains a net with a rule, an optimizer and data; callbacks do what is done beside.

    `dualprop.train` makes one from `Settings`. Made by hand it trains one's own net on one's own batches. It stops
    where it is when numbers go astray; `state_dict` is all that it needs to go on from a batch.

    Args:
        net: the net, which the rule and the optimizer are bound to.
        rule: adds gradients to its parameters' `.grad`.
        optimizer: steps them.
        data: batches of x, shape (B, ...), and y as `Rule.iterate` takes them: a `dualprop.data.Batches`, or a
            list or `DataLoader` that is gone through once an epoch. Or samples, in an order that is drawn anew for
            every epoch: arrays (X, y) or a torch `Dataset`, see `dualprop.data.own_dataset`.
        callbacks: what else is done, in the order of the calls; see `Callback`.
        rate: the learning rate at a time in epochs, fractions included; None leaves it to the optimizer.
        autocast: makes a context for the products' precision.
        processes: those that train together.
        batch_size: samples in a batch, where `data` is no batches.

    Attributes:
        epoch: epochs trained so far.
        batch: batches trained so far in this epoch.
        step: batches trained so far in all.
        last: the last of them, x and y.
        lr: the learning rate of the last of them.
        numbers: how the last epoch went: loss, accuracy (of class indices), images_per_second, seconds and what
            callbacks add.
        meter: what has been seen in this epoch.
        seconds: that training has taken in all finished epochs.

    Raises:
        DualpropError: for an argument of another kind.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> batches = [(torch.randn(5, 4), torch.randint(3, (5,))) for _ in range(10)]
        >>> trainer = Trainer(net, dp.DualProp(net), torch.optim.Adam(net.parameters()), batches)
        >>> sorted(trainer.fit(2))
        ['accuracy', 'images_per_second', 'loss', 'measures', 'seconds']
    """

    def __init__(
        self,
        net: Net,
        rule: Rule,
        optimizer: torch.optim.Optimizer | FusedUpdate,
        data: Epochs | Batches | Dataset[Any] | tuple[Any, Any],
        callbacks: Sequence[Callback] = (),
        *,
        rate: Callable[[float], float] | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        processes: Alone | None = None,
        batch_size: int = 100,
    ) -> None:
        check("net", net, Net)
        if len(net.wiring.outputs) > 1:
            raise DualpropError(
                f"net: has {len(net.wiring.outputs)} outputs, but metrics are of one; in a loop of your own "
                "rule.backward takes several"
            )
        check("rule", rule, Rule)
        if rule.net.ideal is not net.ideal:
            raise DualpropError("rule: bound to another net than this one")
        check("optimizer", optimizer, torch.optim.Optimizer | FusedUpdate)
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not stepped & {id(p) for p in net.parameters()}:
            raise DualpropError("optimizer: steps none of the net's parameters")
        check("callbacks", callbacks, Sequence)
        self.net, self.rule, self.optimizer = net, rule, optimizer
        self.data: Epochs = _epochs(data, check("batch_size", batch_size, Count), net)
        self.callbacks = list(callbacks)
        named = [check("callbacks", callback, Callback).name for callback in self.callbacks]
        for name in filter(None, named):
            if name in STATE or named.count(name) > 1:
                raise DualpropError(f"callbacks: {name!r} names more than one thing that checkpoints keep")
        self.rate, self.autocast = rate, autocast
        self.processes = processes or Alone()
        self.epoch = self.batch = self.step = self.epochs = 0
        self.epoch_seconds = self.seconds = self.lr = 0.0
        self.first_loss: float | None = None
        self.meter, self._evaluated = Meter(), Tally()
        self.numbers: dict[str, Any] = {}
        self.last: Batch | None = None
        self._unset = frozenset(astray(rule.state_dict(), "rule"))  # minima of nothing yet, and the like

    def __repr__(self) -> str:
        return f"Trainer({self.rule!r}, epoch {self.epoch}, step {self.step})"

    def fit(self, epochs: int) -> dict[str, Any]:
        """Train until so many epochs have been trained in all.

        Args:
            epochs: how many, at least 1.

        Returns:
            `numbers`.

        Raises:
            DualpropError: for another number of epochs, or batches that are no pairs.
            DivergenceError: if the loss or a weight becomes NaN or infinite, the loss grows beyond all bounds (see
                `EXPLODED`), or the rule's inference diverges.
        """
        import torchmetrics  # noqa: F401 - it takes seconds, and they are not to count as training

        check("epochs", epochs, Count)
        self.epochs = epochs
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.during(self))
            stack.enter_context(self._located())
            while self.epoch < epochs:
                self._train_epoch()
                for callback in self.callbacks:
                    callback.epoch(self)
            for callback in self.callbacks:
                callback.end(self)
        return self.numbers

    def _train_epoch(self) -> None:
        """The batches of this epoch that are left, and its numbers."""
        begun, before = time.perf_counter(), self.epoch_seconds
        for batch in self.data.epoch(self.epoch, self.batch):
            self.learn(*pair_of(batch))
            self.epoch_seconds = before + time.perf_counter() - begun
            for callback in self.callbacks:
                callback.step(self)
        self.check_weights()
        self.numbers = {**self.so_far(), "seconds": self.epoch_seconds}
        self.epoch, self.batch = self.epoch + 1, 0
        self.seconds, self.epoch_seconds = self.seconds + self.epoch_seconds, 0.0
        self.meter.clear()

    def learn(self, x: Inputs, y: Tensor) -> None:
        """Make every weight update of the rule on the next batch, and count it.

        The loss and the output are those before the first update. What the rule measures is the mean over the
        updates (in this process), and the matrix products that it counts are all together "products".
        """
        groups = self.optimizer.param_groups
        if self.rate is None:
            self.lr = groups[0]["lr"]
        else:
            self.lr = self.rate(self.epoch + self.batch / len(self.data))
            set_lr(groups, self.lr)
        self.batch, self.step, self.last = self.batch + 1, self.step + 1, (x, y)
        part_x, part_y = self.processes.shard(x, y)
        first, measured, products = None, Means(), 0
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.learning(self))
            stack.enter_context(self.autocast())
            stack.enter_context(acting(self.optimizer))
            for update in self.rule.iterate(part_x, part_y):
                measured.add(update.measures)
                products += update.products
                if first is None:
                    loss, first = self.processes.mean(float(update.loss)), update
                    self._check_loss(loss)
                for callback in self.callbacks:
                    callback.gradients(self)
                self.optimizer.step()
                self.optimizer.zero_grad()
                for callback in self.callbacks:
                    callback.update(self)
        assert first is not None, "a rule yields at least once per batch"
        measures = measured() | ({"products": float(products)} if products else {})
        self.meter.add(loss, self.processes.gather(first.output, len(y)), y, measures)

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss became {loss}, {self._where()}")
        self.first_loss = abs(loss) if self.first_loss is None else self.first_loss
        if loss > EXPLODED * max(self.first_loss, 1.0):
            raise DivergenceError(f"the loss became {loss:.3g}, from {self.first_loss:.3g} in the first batch")

    def so_far(self) -> dict[str, Any]:
        """Loss, accuracy, measures and speed in this epoch."""
        tally = self.meter.whole()
        return {**tally.numbers(), "images_per_second": tally.samples / self.epoch_seconds}

    def evaluate(self, batches: Batches) -> dict[str, float]:
        """Mean loss and accuracies of the rule's predictions, targets not smoothed.

        Raises:
            DivergenceError: if that loss is NaN or infinite.
        """
        loss, tally = self.rule.loss.smoothed(0.0), self._evaluated
        tally.clear()
        for batch in batches:
            x, y = pair_of(batch)
            with self.autocast():
                output = self.rule.predict(self.processes.shard(x, y)[0])
            output = self.processes.gather(output.to(in_order(x)[0].dtype), len(y))
            tally.add(float(loss.value(output, loss.encode(y, output.shape, output.dtype)).mean()), output, y)
        numbers = tally.means()
        if not math.isfinite(numbers["loss"]):
            raise DivergenceError(f"the loss of the predictions became {numbers['loss']}")
        return numbers

    def check_weights(self) -> None:
        """Refuse to go on with weights that have gone astray.

        Raises:
            DivergenceError: if one is NaN or infinite.
        """
        if not all(bool(torch.isfinite(p).all()) for p in self.net.parameters()):
            raise DivergenceError(f"a weight became NaN or infinite, {self._where()}")

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse a state in which weights, an optimizer or a rule have gone astray.

        Args:
            state: as `state_dict` gives it.

        Raises:
            DivergenceError: if a number in it is NaN or infinite that was not so when the trainer was made.
        """
        places = astray({name: state[name] for name in ("net", "optimizer")})
        kept = (place for one in state["rule"] for place in astray(one, "rule") if place not in self._unset)
        place = next(itertools.chain(places, kept), None)
        (bad,) = self.processes.any(place is not None)
        if bad:
            raise DivergenceError(f"{place or 'a state of another process'} is NaN or infinite")

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, rule and random state (in every process), counters, and what the callbacks keep."""
        return {
            "net": saved(self.net),
            "optimizer": saved(self.optimizer),
            "rule": self.processes.gathered(self.rule.state_dict()),
            "rng": self.processes.gathered(saved(self._random())),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "meter": self.meter.state_dict(),
            **{callback.name: callback.state_dict() for callback in self.callbacks if callback.name},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; shapes, types and settings are those of this trainer's own parts.

        Raises:
            DualpropError: if it belongs to another net, optimizer or rule; the trainer is then of no more use.
        """
        check("state", state, Mapping[str, Any])
        names = [*STATE, *(callback.name for callback in self.callbacks if callback.name)]
        if set(state) != set(names):
            raise DualpropError(f"state: holds {sorted(state)}, but this trainer keeps {sorted(names)}")
        for name in ("rule", "rng"):
            if len(check(name, state[name], list[Any])) != self.processes.count:
                raise DualpropError(f"made by {len(state[name])} processes, and here are {self.processes.count}")
        self._count(state["counters"])
        restored(self.net, state["net"], "net")
        restored(self.optimizer, state["optimizer"], "optimizer")
        self.rule.load_state_dict(state["rule"][self.processes.rank])
        self.check_state(state)
        restored(self._random(), state["rng"][self.processes.rank], "rng")
        self.meter.load_state_dict(state["meter"])
        for callback in self.callbacks:
            if callback.name:
                callback.load_state_dict(state[callback.name])

    def _count(self, counters: Any) -> None:
        """Take back what was counted."""
        if set(check("counters", counters, dict[str, Any])) != set(COUNTERS):
            raise DualpropError(f"counters: holds {sorted(counters)}, but it must hold {sorted(COUNTERS)}")
        for name, kind in COUNTERS.items():
            setattr(self, name, check(f"counters.{name}", counters[name], kind))
        least, most = max(self.epoch, self.batch), self.epoch * len(self.data) + self.batch
        if not (self.batch <= len(self.data) and least <= self.step <= most):
            raise DualpropError(
                f"counters: step {self.step} is not in batch {self.batch} of {len(self.data)} after "
                f"{self.epoch} epochs"
            )

    def _random(self) -> dict[str, Any]:
        """What is drawn from by whatever has no generator of its own, and by the data."""
        found: dict[str, Any] = {"cpu": torch.default_generator}
        device = next(self.net.parameters(), torch.empty(0)).device
        if device.type == "cuda":
            found["cuda"] = torch.cuda.default_generators[device.index or 0]
        return {**found, "data": self.data} if isinstance(self.data, Repeated) else found

    def _where(self) -> str:
        """Where the numbers went astray, or what the inference that is to show it says."""
        x, y = self.last or pair_of(next(iter(self.data.epoch(self.epoch))))
        try:
            return f"first in {first_nonfinite(self.rule, x, y)}"
        except DivergenceError as error:
            return str(error)

    @contextmanager
    def _located(self) -> Iterator[None]:
        """A context in which what diverges is told with its step and epoch."""
        try:
            yield
        except DivergenceError as error:
            epoch = self.epoch + (self.batch > 0)
            raise DivergenceError(f"at step {self.step} (epoch {epoch}) {error}") from None
