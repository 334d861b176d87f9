"""The learner: dyads that live as long as it, a frame at each tick, weights that move at each tick."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import (
    Count,
    CountOrZero,
    NotNegative,
    PerLayer,
    Portion,
    Positive,
    check,
    checked,
    per_layer,
)
from dualprop.engines.dyads.circuit import Circuit
from dualprop.engines.dyads.frames import arrivals
from dualprop.engines.dyads.memory import Memory
from dualprop.engines.dyads.neurons import Link
from dualprop.engines.dyads.schedules import Schedule
from dualprop.engines.dyads.states import Nudge
from dualprop.errors import DualpropError
from dualprop.nets.losses import LOSSES, Loss, LossOrName
from dualprop.nets.net import Net
from dualprop.nets.shapes import Shape
from dualprop.nets.synapses import buffers_kept, one_step
from dualprop.rules.state import restored, saved
from dualprop.training.stream.dyads import Dyads
from dualprop.training.stream.growth import Growth
from dualprop.training.stream.labels import Book, Encoder
from dualprop.training.stream.pairing import Delayed, Pairing, Present
from dualprop.training.stream.steps import WeightStep, chosen
from dualprop.training.stream.taken import frame_of, output_of, updates_of
from dualprop.training.stream.tick import Tick


class Learner:
    """Continuous dual propagation on a stream: a frame at each tick, every layer updated once, no resets.

    At a tick every layer of dyads moves on from where it is, by its neighbours as the tick before left them, and
    the weights move by the errors that have arrived. A frame is at the output L - 1 ticks after it came in, L
    layers being the longest way. It is judged there, before its label acts; then its label nudges the output, and
    its error goes down a layer a tick.

    Args:
        net: of one input and one output, a chain or a graph. Its weights are changed in place.
        loss: a name in `LOSSES` or a `Loss`.
        alpha: α in [0, 1].
        beta: the strength of the nudges, positive: one number, or one for each layer.
        pairing: what an error is paired with: `Delayed()`, or `Present()`, which alone takes graphs with cycles
            and is their default.
        step: "normalised", "centred" or "sgd" with the rate `lr`, an optimizer over the net's parameters, or a
            `WeightStep`.
        lr: the rate of the first three, 0.3 by default.
        schedule: the updates of one tick: every layer once, all from the tick before, by default; `Sweep()` for a
            whole sweep at every tick. Any that draws nothing, with `Present()`.
        samples: how many samples come in at a tick, side by side; more than one have a batch dimension.
        grow: whether a class that follows the known ones adds an output neuron, and features behind the known ones
            add columns, with weights of zero; features that are missing at the end read as zero. For chains whose
            first and last synapses are dense.

    Attributes:
        ticks: how many there have been.
        latency: ticks from a frame's own to the one at which it is at the output.
        turn: ticks from a frame's own to the one at which its label acts.
        missed: labels that came when their frames had had their turn, and were skipped.

    Raises:
        DualpropError: for a value out of range, or a net, schedule or loss that do not fit.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 8, 3])
        >>> learner = dp.stream.Learner(net, loss="cross_entropy", beta=0.1)
        >>> learner.latency
        2
        >>> x = torch.ones(4)
        >>> [learner.tick(x, y=2).frame for _ in range(4)]
        [None, None, 0, 1]
        >>> learner.predict(x).shape
        torch.Size([3])

    References:
        Ernoult et al., *Equilibrium Propagation with Continual Weight Updates* (arXiv 2005.04168); Haider et al.,
        *Latent Equilibrium* (arXiv 2110.14549); Ellenberger et al., *Backpropagation through space, time and the
        brain* (GLE, arXiv 2403.16933); Meloni et al., *PARTIME* (arXiv 2210.09147); Malinowski et al., *Sideways*
        (arXiv 2001.06232): others that infer and learn without end.
    """

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: LossOrName = "cross_entropy",
        alpha: Portion = 0.5,
        beta: PerLayer[Positive] = 0.1,
        pairing: Pairing | None = None,
        step: WeightStep | torch.optim.Optimizer | str = "normalised",
        lr: NotNegative | None = None,
        schedule: Schedule | str | None = None,
        samples: Count = 1,
        grow: bool = False,
    ) -> None:
        wiring = net.wiring
        self._output = output_of(wiring)
        self.net, self.samples, self.grow = net, samples, grow
        self._growth = Growth(net, samples) if grow else None
        self.loss: Loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.pairing = pairing or (Present() if wiring.cyclic else Delayed())
        self.step = chosen(step, lr)
        self.step.check(net)
        self._nudge = Nudge(alpha, per_layer("beta", beta, wiring.depth))
        self.loss.check(net.stack[self._output - 1].potential, self._nudge.at(self._output)[1])
        self._updates = updates_of(schedule, wiring)
        self._lags = self.pairing.lags(self._updates, wiring)
        backs = list(arrivals(self._updates, wiring).values())
        if not backs:
            raise DualpropError(f"schedule={schedule!r}: does not update the output layer")
        self.latency, self.turn = backs[-1], max(backs) + self.pairing.late
        self._book, self.ticks = Book(), 0
        self._dyads = Dyads(net, self._made)
        self._begin(None)

    def tick(self, x: Tensor | None, y: Any = None) -> Tick:
        """One tick: a frame comes in, every layer is updated, every edge learns to whose layer an error has come.

        Args:
            x: the frame, of the shape of one sample, in the parameters' type; (B, ...) for several samples. None
                if it was dropped: the input stays as it was.
            y: its label: a class, or a float target of the output's shape; None for not yet. For several samples
                one for each, None where it is missing.

        Returns:
            What was measured of the frame that is at the output now.

        Raises:
            DualpropError: for a frame or a label that does not fit, NaN or infinite; nothing has happened then.
        """
        if x is not None:
            x = frame_of(x, self._dyads.like, self.samples)
        elif self._dyads.shape is None:
            raise DualpropError("x=None: the first frame cannot be dropped")
        if self._growth is not None:
            self._grow(self._growth, x, y)
            x = None if x is None else self._growth.fitted(x)
        if x is not None:
            shape = x.shape if self.samples == 1 else x.shape[1:]
            if shape != self._dyads.shape:
                self._take(tuple(shape))
        label = None if y is None else self._encoder(y)
        tick = self.ticks
        if label is not None:
            self._book[tick] = label
        circuit = self._dyads.circuit
        for back, slot in circuit.labels.items():
            known = self._book.get(tick - back)
            slot.gate.open = known is not None
            if known is not None:
                slot.target.copy_(known.target)
                if self.samples > 1:
                    slot.weight.zero_()
                    slot.weight[list(known.given)] = 1
        circuit.enter(tick, x)
        if circuit.fixed and not self.step.by_grad:  # all tensors are bound, and none has a graph
            circuit.run(tick)
        else:
            self._learn_by_grad(circuit, tick)
        self.ticks += 1
        seen = self._seen(circuit, tick - self.latency, tick)
        self._book.pop(tick - self.turn, None)
        return seen

    @torch.no_grad()
    def _learn_by_grad(self, circuit: Circuit, tick: int) -> None:
        """A tick in which synapses are read and learn as in a step of a rule."""
        self.step.begin(self.net)
        with one_step(self.net.synapses):
            circuit.run(tick)
        self.step.finish(self.net)

    def label(self, frame: int, y: Any) -> Tick | None:
        """The label of a frame that has come in.

        Args:
            frame: its number.
            y: as in `tick`.

        Returns:
            What was measured of the frame when it was at the output, if it has been there; None if it has not, or
            if the label came too late: it is counted in `missed` and skipped.

        Raises:
            DualpropError: for a frame that has not come in yet, or a label that does not fit.
        """
        frame = check("frame", frame, CountOrZero)
        if frame >= self.ticks:
            last = f"the last that came in is {self.ticks - 1}" if self.ticks else "none has come in"
            raise DualpropError(f"frame={frame}: {last}")
        if self._growth is not None:
            self._grow(self._growth, None, y)
        label = self._encoder(y)
        if frame < self.ticks - self.turn:
            self._book.missed += 1
            return None
        if label is not None:
            self._book[frame] = label
        at_output = frame + self.latency
        return self._seen(self._dyads.circuit, frame, at_output) if at_output < self.ticks else None

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """What the net says of x in a forward pass, with the weights as they are; changes nothing.

        Args:
            x: as in `tick`.

        Returns:
            The output of the shape of one sample; of several samples (B, ...).

        Raises:
            DualpropError: for an x that the net cannot take.
        """
        x = frame_of(x, self._dyads.like, self.samples)
        if self._growth is not None:
            x = self._growth.fitted(x)
        batch = x[None] if self.samples == 1 else x
        self.net.shapes(tuple(batch.shape[1:]))
        with buffers_kept(self.net), one_step(self.net.synapses):
            output: Tensor = self.net(batch)
        return output[0] if self.samples == 1 else output

    @property
    def memory(self) -> Memory:
        """The states and delay lines.

        Raises:
            DualpropError: before the first frame, whose shape they have.
        """
        if self._dyads.shape is None:
            raise DualpropError("memory: there is none before the first frame")
        return self._dyads.circuit.memory

    @property
    def missed(self) -> int:
        """Labels that came when their frames had had their turn."""
        return self._book.missed

    def __repr__(self) -> str:
        return f"Learner({len(self.net)} layers, {self.pairing!r}, {self.ticks} ticks)"

    def state_dict(self) -> dict[str, Any]:
        """All that the next tick depends on: weights, step, states, delay lines, labels that wait."""
        shape = self._dyads.shape
        return {
            "ticks": self.ticks,
            "shape": None if shape is None else list(shape),
            "net": saved(self.net),
            "step": self.step.state_dict(),
            "labels": self._book.state_dict(),
            "memory": None if shape is None else self.memory.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the stream goes on to the bit.

        Raises:
            DualpropError: if it is another net's or another kind of learner's; the learner is then as it was.
        """
        check("state", state, Mapping[str, Any])
        own = self.state_dict()
        if set(state) != set(own):
            raise DualpropError(f"state: holds {sorted(map(str, state))}, but a learner keeps {sorted(own)}")
        try:
            copy.deepcopy(self)._restore(state)
        except (DualpropError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            raise DualpropError(f"state: does not fit this learner ({why})") from None
        self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        if self._growth is not None:
            self._widen(*self._growth.lacking(state["net"]))
        restored(self.net, state["net"], "state: net")
        self.step.load_state_dict(state["step"])
        self._begin(None if state["shape"] is None else tuple(state["shape"]))
        if self._dyads.shape is not None:
            memory = self.memory
            memory.load_state_dict(restored(memory.state_dict(), state["memory"], "state: memory"))
            self._dyads.circuit.see()
        self._book.load_state_dict(state["labels"])
        self.ticks = int(restored(self.ticks, state["ticks"], "state: ticks"))

    def _grow(self, growth: Growth, x: Tensor | None, y: Any) -> None:
        """The net grows to what is new, once x and y have been looked at."""
        features, classes = growth.wanted(x, y)
        if features or classes:
            if y is not None:
                Encoder(self.loss, self.samples, (growth.classes + classes,), self._dyads.like)(y)  # or an error
            self._widen(features, classes)

    def _take(self, shape: Shape) -> None:
        """Frames of this shape come in."""
        if self._dyads.shape is not None:
            raise DualpropError(f"x: shape {shape}, but the frames before had {self._dyads.shape}")
        self.net.shapes(shape)
        self._begin(shape)

    def _widen(self, inputs: int, outputs: int) -> None:
        """Further features and classes; weights, optimizer, states and labels that wait are kept."""
        kept, shape = self._dyads.states(), self._dyads.shape
        self.net.widen(inputs=inputs, outputs=outputs)
        self.step.widened()
        self._book.widen(outputs)
        self._begin(None if shape is None else (shape[0] + inputs,), kept)

    def _begin(self, shape: Shape | None, kept: dict[str, Any] | None = None) -> None:
        """Dyads and labels for frames of this shape."""
        self._dyads.begin(shape, kept)
        out = () if shape is None else self.net.shapes(shape)[self._output]
        self._encoder = Encoder(self.loss, self.samples, out, self._dyads.like)

    @torch.inference_mode(False)  # they live on where the first frame comes in it
    def _made(self, shape: Shape, like: Tensor) -> Circuit:
        """Dyads at zero."""
        return Circuit(
            self.net,
            self._nudge,
            self.loss,
            self._updates,
            lags=self._lags,
            forward=self.pairing.forward,
            learns=self._learns,
            shapes=self.net.shapes(shape),
            samples=self.samples,
            like=like,
        )

    def _learns(self, link: Link) -> Any:
        return self.step.bind(link, 1 / (self._nudge.beta[link.above.number - 1] * self.samples))

    def _seen(self, circuit: Circuit, frame: int, tick: int) -> Tick:
        """What the output said at a tick of the frame that was there."""
        if frame < 0:
            return Tick(None, None)
        target, given = self._book.get(frame) or (None, ())
        return Tick(frame, circuit.output(tick), target, given, self.loss, self.samples)
