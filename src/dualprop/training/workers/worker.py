"""A worker: consecutive layers with their own weights, their own optimizers and their own pace.

It knows neither clock nor network: it is given messages and a time, and gives messages back. Whoever runs it, a
simulation or a process, brings both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from dualprop.arguments import CountOrZero, check
from dualprop.engines.dyads.neurons import Link
from dualprop.engines.dyads.states import Nudge
from dualprop.errors import DivergenceError, DualpropError
from dualprop.nets.losses import Loss
from dualprop.nets.net import Layer
from dualprop.nets.shapes import Shape
from dualprop.nets.synapses import one_step
from dualprop.rules.state import restored, saved
from dualprop.training.optim.optimizers import set_lr
from dualprop.training.workers.differences import Difference
from dualprop.training.workers.grouping import multiply_adds
from dualprop.training.workers.message import Message
from dualprop.training.workers.pairs import Pairs


@dataclass(frozen=True)
class Part:
    """Some consecutive layers of a chain, and all that is to be known of the whole.

    Attributes:
        layers: the layers of the net.
        first: the number of the first of them.
        depth: L, the number of layers of the whole.
        shapes: of one sample of z_0 .. z_L.
        dtype: of the states.
        batch_size: samples in a batch; the last one of an epoch has what is left.
        samples: in an epoch.
        loss: of the output layer.
        nudge: how states are nudged.
        difference: what layers make of feedback.
        pairs: the batches.
        optimizer: makes one of parameters.
        rate: the learning rate at a time in epochs, fractions included.
        lead: its work beside that of whoever has most of it among the others, at least 1.
    """

    layers: Sequence[Layer]
    first: int
    depth: int
    shapes: Sequence[Shape]
    dtype: torch.dtype
    batch_size: int
    samples: int
    loss: Loss
    nudge: Nudge
    difference: Difference
    pairs: Pairs
    optimizer: Callable[[int, Iterable[Parameter]], Optimizer]
    rate: Callable[[float], float]
    lead: float = 1.0

    @property
    def last(self) -> int:
        """The number of the last layer."""
        return self.first + len(self.layers) - 1

    @property
    def takes_inputs(self) -> bool:
        """Whether its first layer reads the inputs."""
        return self.first == 1

    @property
    def takes_targets(self) -> bool:
        """Whether its last layer is the output."""
        return self.last == self.depth

    def size(self, batch: int) -> int:
        """How many samples a batch has."""
        last = batch % len(self.pairs) == len(self.pairs) - 1
        return self.samples - self.batch_size * (len(self.pairs) - 1) if last else self.batch_size

    def targets(self, batch: int) -> Tensor:
        """The encoded targets of a batch, of the output's shape."""
        shape = torch.Size((self.size(batch), *self.shapes[-1]))
        return self.loss.encode(self.pairs.y(batch), shape, self.dtype)

    def zeros(self, size: int, k: int) -> Tensor:
        """The states of layer k that has never been updated."""
        return torch.zeros(size, *self.shapes[k], dtype=self.dtype)

    def fits(self, message: Message, k: int) -> bool:
        """Whether a message brings the state of layer k, or its feedback, of a batch or of its first samples."""
        size, *shape = message.tensor.shape or (0,)
        return (
            message.layer == k
            and 0 < size <= self.size(message.batch)
            and tuple(shape) == tuple(self.shapes[k])
            and message.tensor.dtype is self.dtype
        )


@dataclass
class Counts:
    """What a worker has done and has not.

    Attributes:
        seen: batches whose mean has come, or that it has begun.
        updates: of its weights.
        skipped: batches that it has seen and not learnt from, for nothing came down in time.
        late: messages of batches that it does not remember, or not any more.
        doubled: messages that it had already.
        refused: messages that do not fit.
        stale: updates that were made between the way up and the way down of a batch, over all of them.
        samples: at the output: samples judged since the counts were told.
        loss: at the output: the sum of their losses.
        correct: at the output: how many had their largest output where their target is largest.
        top5: how many had it among the five largest.
    """

    seen: int = 0
    updates: int = 0
    skipped: int = 0
    late: int = 0
    doubled: int = 0
    refused: int = 0
    stale: int = 0
    samples: int = 0
    loss: float = 0.0
    correct: int = 0
    top5: int = 0


LASTING = ("seen", "updates", "skipped", "late", "doubled", "refused", "stale")
"""Those of them that are counted from the beginning to the end."""


class Way(Protocol):
    """How workers work."""

    @property
    def one_by_one(self) -> bool:
        """Whether every message is acted on by itself; else all that have come together, the latest of each."""

    def begun(self, worker: Worker) -> Pace:
        """A worker that works so."""


class Pace(Protocol):
    """What a way of working makes of messages and time."""

    next: int
    until: int
    due: float

    def react(self, messages: Sequence[Message], now: float) -> list[Message]:
        """See `Worker.react`."""

    @property
    def done(self) -> bool:
        """See `Worker.done`."""

    def finish(self) -> None:
        """No more will come of the batches that are open."""

    def took(self, seconds: float) -> None:
        """See `Worker.took`."""

    @property
    def share(self) -> float:
        """See `Worker.share`."""


@dataclass
class Worker:
    """Layers first..last at work.

    Args:
        part: the layers, and what is to be known of the whole.
        way: how it works: `InFlight` or `Held`.

    Attributes:
        counts: what it has done.
        effort: the products of all its layers that it has made, of as many samples as a batch has: one for each
            batch on the way up, one to learn, and `down`.
        down: what of them is made on the way down: all but that of the first layer of the net.
    """

    part: Part
    way: Way
    counts: Counts = field(default_factory=Counts)
    effort: float = 0.0

    def __post_init__(self) -> None:
        part = self.part
        self.synapses = [layer.synapse for layer in part.layers]
        self.optimizers = {
            k: part.optimizer(k, parameters)
            for k, layer in enumerate(part.layers, part.first)
            if (parameters := [p for p in layer.parameters() if p.requires_grad])
        }
        work = multiply_adds(self.synapses, part.shapes[part.first - 1 :])
        self.down = sum(work[1:] if part.takes_inputs else work) / (sum(work) or 1.0)
        self._pace: Pace = self.way.begun(self)

    @property
    def name(self) -> str:
        """The layers in words."""
        first, last = self.part.first, self.part.last
        return f"layer {first}" if first == last else f"layers {first}-{last}"

    @torch.no_grad()
    def react(self, messages: Sequence[Message], now: float) -> list[Message]:
        """What it says when it is told something, or when its time has come.

        Args:
            messages: in the order in which they have come; none if it is time.
            now: in seconds, from any beginning.

        Raises:
            DivergenceError: if the loss has become NaN or infinite.
        """
        return self._pace.react(messages, now)

    def begin_now(self, now: float) -> None:
        """It is time for the first layer to begin a batch."""
        if self.part.takes_inputs:
            self._pace.due = now

    @property
    def due(self) -> float:
        """When it wants to be asked again, whether anything has come by then or not."""
        return self._pace.due

    @property
    def next(self) -> int:
        """The number of the batch that it will begin or expects next."""
        return self._pace.next

    @next.setter
    def next(self, batch: int) -> None:
        self._pace.next = batch

    @property
    def until(self) -> int:
        """The number of the first batch that it is not to begin."""
        return self._pace.until

    @until.setter
    def until(self, batch: int) -> None:
        self._pace.until = batch

    @property
    def done(self) -> bool:
        """Whether all batches before `until` have been begun, and have come back or are given up."""
        return self._pace.done

    def finish(self) -> None:
        """Count what is open as skipped."""
        self._pace.finish()

    def took(self, seconds: float) -> None:
        """What it has done at last took so long, says whoever runs it."""
        self._pace.took(seconds)

    @property
    def share(self) -> float:
        """The part of a batch that it takes on: less than 1 where it is slow."""
        return self._pace.share

    def reading(self) -> Any:
        """A context in which its weights are read once."""
        return one_step(self.synapses)

    def learn(self, links: Iterable[Link], batch: int) -> None:
        """Its layers' edges learn, and every optimizer makes a step."""
        with self.reading():
            for link in links:
                link.learn()
        rate = self.part.rate(batch / len(self.part.pairs))
        for optimizer in self.optimizers.values():
            set_lr(optimizer.param_groups, rate)
            optimizer.step()
            optimizer.zero_grad()
        self.counts.updates += 1

    def judge(self, output: Tensor, y: Tensor, batch: int) -> None:
        """Count the loss and what is right of what the output layer says of a batch.

        Raises:
            DivergenceError: if the loss is NaN or infinite.
        """
        loss = float(self.part.loss.value(output, y).sum())
        if not abs(loss) < float("inf"):
            raise DivergenceError(f"the loss became {loss} at batch {batch}; give a smaller lr")
        counts, flat = self.counts, output.flatten(1)
        best = y.flatten(1).argmax(1, keepdim=True)
        order = flat.topk(min(5, flat.shape[1]), 1).indices == best
        counts.samples += len(output)
        counts.loss += loss
        counts.correct += int(order[:, 0].sum())
        counts.top5 += int(order.sum())

    def told(self) -> dict[str, float]:
        """Its counts; what it has judged is counted anew from here."""
        counts = asdict(self.counts)
        self.counts.samples = self.counts.correct = self.counts.top5 = 0
        self.counts.loss = 0.0
        return counts

    def weights(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """The parameters and buffers of its layers, by their numbers."""
        for k, layer in enumerate(self.part.layers, self.part.first):
            yield k, dict(layer.state_dict())

    def state_dict(self, k: int) -> dict[str, Any]:
        """What one of its layers needs to go on, as tensors and numbers in plain containers."""
        optimizer = self.optimizers.get(k)
        return {
            "layer": saved(self.part.layers[k - self.part.first]),
            "optimizer": None if optimizer is None else saved(optimizer),
            "batch": self.next,
            "counts": {name: getattr(self.counts, name) for name in LASTING},
        }

    def load_state_dict(self, k: int, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave of a layer; of the counts the last that is given stands.

        Raises:
            DualpropError: if it is of another layer or another optimizer.
        """
        if set(check("state", state, Mapping[str, Any])) != {"layer", "optimizer", "batch", "counts"}:
            raise DualpropError(f"state: holds {sorted(state)}, but a layer keeps layer, optimizer, batch, counts")
        optimizer, at = self.optimizers.get(k), f"state: layer {k}"
        if (optimizer is None) is not (state["optimizer"] is None):
            raise DualpropError(f"{at}: of another kind of layer")
        batch = check(f"{at}: batch", state["batch"], CountOrZero)
        counts = restored(dict.fromkeys(LASTING, 0), state["counts"], f"{at}: counts")
        restored(self.part.layers[k - self.part.first], state["layer"], at)
        if optimizer is not None:
            restored(optimizer, state["optimizer"], f"{at}: optimizer")
        self.next = max(self.next, batch)
        for name, count in counts.items():
            setattr(self.counts, name, count)
