"""A learner on a stream of images, one pass, its rate chosen on a stream of another seed."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from dualprop.arguments import Count, CountOrZero, NotNegative, Several, checked
from dualprop.engines.dyads.schedules import Sweep
from dualprop.errors import DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials.base import Places
from dualprop.nets.potentials.relu import ReLU
from dualprop.nets.synapses import Dense
from dualprop.runs.settings import Settings
from dualprop.runs.streams import StreamSettings
from dualprop.studies.tables.makers.measurement import Measured, Measurement
from dualprop.training.stream.learner import Learner
from dualprop.training.stream.pairing import Delayed, Present
from dualprop.training.stream.sources import Source, made, mixed

TUNING = 100
"""What the seed of the stream that rates are chosen on is behind every other."""

POINTS = 50
"""Of a curve."""

PROBE = 500
"""Frames that a unit is silent for to count as dead."""


class TrueSlope(ReLU):
    """A ReLU whose two states differ by f'(a) e, as back-propagation has it."""

    def dyad(
        self, a: Tensor, d: Tensor, up: float, down: float, share: float, out: Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """f(a), and (up + down) f'(a) d."""
        return torch.relu(a), (up + down) * d * (a > 0)


class Passing(Present):
    """An error meets the drive of now, and f(a) goes up, as in Sideways back-propagation."""

    forward = True


@checked
@dataclass(frozen=True)
class Stream(Measurement):
    """A multi-layer perceptron that learns from images as they come, each judged once, before its label acts.

    The rule says what an error is: f(a + e/2) - f(a - e/2) with dp, f'(a) e with bp; the pairing what it meets.
    Images come in an order drawn by the seed, over and over in another one. A held or drifting picture is judged
    once, at the tick at which its first view is at the output, and one that is skipped by what the net says of it.

    Args:
        pairing: "delayed", the frame's own drive, from a delay line; "present", the drive of now (with bp the mean
            f(a) goes up: Sideways); "sweep", its own, for a whole sweep is made in every tick.
        step: "normalised", "centred", "sgd" or "adam".
        rates: of which the best is taken, by the accuracy on a stream of another seed.
        frames: ticks of the stream, those included at which a frame is skipped.
        tuning: frames of that other stream.
        hold: ticks for which a picture is shown.
        drift: whether it walks and turns meanwhile.
        every: of so many frames the learner gets one; what comes in between it is too slow for.
        period: frames after which the pixels change places; 0 for never.
        beta: the strength of the nudges.
    """

    name = "stream"
    pairing: Literal["delayed", "present", "sweep"] = "delayed"
    step: Literal["normalised", "centred", "sgd", "adam"] = "normalised"
    rates: Several[NotNegative] = (0.03, 0.1, 0.3)
    frames: Count = 12_000
    tuning: Count = 6_000
    hold: Count = 1
    drift: bool = False
    every: Count = 1
    period: CountOrZero = 0
    beta: NotNegative = 0.1

    def check(self, settings: Settings) -> None:
        """Names; dp or bp in an MLP of ReLUs."""
        super().check(settings)
        if settings.rule not in ("dp", "bp") or settings.rule_settings:
            raise DualpropError(f"rule={settings.rule!r}: a stream is learnt by dp or bp, without settings")
        if settings.net != "mlp" or settings.activation not in (None, "relu"):
            raise DualpropError(f"net={settings.net!r}: a stream is learnt by an mlp of ReLUs")

    def measure(self, settings: Settings) -> Measured:
        """Choose the rate, then learn.

        Numbers: `accuracy`; `late_accuracy`, over the last quarter; `rate`; `products`, of a tick; `dead`, the
        part of the hidden neurons that are silent at the end; `hours`. Series: `curve`, the accuracy so far, at 50
        places; `tuning`, pairs of a rate and its accuracy; `by_period`, the accuracy in every period, and `dead`.
        """
        begun = time.perf_counter()
        tuned = self._tuned(json.dumps({**settings.as_dict(), "seed": 0}))
        rate = max(tuned, key=lambda pair: pair[1])[0]
        course = self._learnt(settings, rate, settings.seed, self.frames)
        hits = torch.tensor(course.hits, dtype=torch.float64)
        last = hits[-max(1, len(hits) // 4) :]
        places = [max(1, len(hits) * n // POINTS) for n in range(1, POINTS + 1)]
        numbers = {
            "accuracy": float(hits.mean()),
            "late_accuracy": float(last.mean()),
            "rate": rate,
            "products": float(course.products),
            "dead": course.dead[-1],
            "hours": (time.perf_counter() - begun) / 3600,
        }
        curve = [round(float(hits[:n].mean()), 5) for n in places]
        series: dict[str, list[Any]] = {"curve": curve, "tuning": [list(pair) for pair in tuned]}
        if self.period:
            spans = torch.split(hits, self.period)
            series |= {"by_period": [round(float(span.mean()), 5) for span in spans], "dead": course.dead}
        return Measured(numbers, series)

    def seconds(self, settings: Settings) -> float:
        """As long as some ticks take."""
        begun, some = time.perf_counter(), 200
        self._learnt(settings, self.rates[0], TUNING, some)
        whole = self.frames + len(self.rates) * self.tuning / 3
        return (time.perf_counter() - begun) * whole / some

    @functools.lru_cache(maxsize=512)  # noqa: B019 - of frozen values, and the same for every seed
    def _tuned(self, settings: str) -> tuple[tuple[float, float], ...]:
        """Every rate with its accuracy."""
        asked = Settings.from_dict(json.loads(settings))
        found = []
        for rate in self.rates:
            hits = self._learnt(asked, rate, TUNING, self.tuning).hits
            found.append((float(rate), round(sum(hits) / len(hits), 6)))
        return tuple(found)

    def _learnt(self, settings: Settings, rate: float, seed: int, frames: int) -> Course:
        """One pass."""
        learner, course = self._learner(settings, rate, seed), Course()
        first, recent = deque[bool](), deque[Tensor](maxlen=PROBE)
        for number, (x, y, new) in enumerate(islice(self._frames(settings, seed), frames), 1):
            recent.append(x)
            if (number - 1) % (self.hold * self.every) >= self.hold:  # it comes while the learner is at work
                if new:
                    course.hits.append(int(learner.predict(x).argmax()) == y)
            else:
                tick = learner.tick(x, y)
                first.append(new)
                if tick.frame is not None and first.popleft():
                    course.hits.append(bool(tick.correct))
            if number == frames or (self.period and number % self.period == 0):
                course.dead.append(silent(learner.net, torch.stack(list(recent))))
        with counting() as counts:
            learner.tick(recent[-1], 0)
        course.products = counts.total.products
        return course

    def _frames(self, settings: Settings, seed: int) -> Iterator[tuple[Tensor, int, bool]]:
        """Frames side by side as a row, each with its label, and whether it is a picture's first; without end."""
        passes = (self._source(settings, seed, turn).items(0) for turn in count())
        for number, item in enumerate(chain.from_iterable(passes)):
            assert item is not None
            assert item.x is not None
            assert item.y is not None
            x = item.x.flatten()
            if self.period:
                x = x[_order(len(x), mixed(seed, number // self.period))]
            yield x, item.y, item.first

    def _source(self, settings: Settings, seed: int, turn: int) -> Source:
        return _source(settings.data, settings.data_root, self.hold, self.drift, mixed(seed, turn))

    def _learner(self, settings: Settings, rate: float, seed: int) -> Learner:
        source, generator = self._source(settings, seed, 0), torch.Generator().manual_seed(seed)
        sizes = [math.prod(source.in_shape), *(settings.hidden or (128, 128)), source.classes]
        init = settings.init or "glorot-uniform"
        synapses = [Dense(i, o, init=init, generator=generator) for i, o in pairwise(sizes)]
        hidden = TrueSlope() if settings.rule == "bp" else "relu"
        potentials = [hidden] * (len(synapses) - 1) + ["linear"]
        net = Net([Layer(*pair) for pair in zip(synapses, potentials, strict=True)])
        step: dict[str, Any] = {"step": self.step, "lr": rate}
        if self.step == "adam":
            step = {"step": torch.optim.Adam(net.parameters(), lr=rate, fused=True)}
        present = Present() if settings.rule == "dp" else Passing()
        pairing = present if self.pairing == "present" else Delayed()
        schedule = Sweep() if self.pairing == "sweep" else None
        return Learner(net, loss=settings.loss, beta=self.beta, pairing=pairing, schedule=schedule, **step)


@dataclass
class Course:
    """How a stream went.

    Attributes:
        hits: of every picture whether it was classified as its label says.
        dead: the part of the hidden neurons that were silent at the end of each period, and at the end.
        products: of a tick.
    """

    hits: list[bool] = field(default_factory=list)
    dead: list[float] = field(default_factory=list)
    products: int = 0


@torch.no_grad()
def silent(net: Net, frames: Tensor) -> float:
    """The part of the hidden neurons that none of some frames makes active."""
    z, quiet, every = frames, 0, 0
    for layer in net.chain[:-1]:
        z = layer.potential(layer.synapse(z))
        quiet, every = quiet + int((z == 0).all(0).sum()), every + z.shape[1]
    return round(quiet / every, 5) if every else 0.0


@functools.lru_cache(maxsize=8)
def _source(data: str, root: str | None, hold: int, drift: bool, seed: int) -> Source:
    settings = StreamSettings(source=data, hold=hold, drift=drift, seed=seed, data_root=root)
    return made(settings, sys.stdin)


@functools.lru_cache(maxsize=2)
def _order(features: int, seed: int) -> Tensor:
    return torch.randperm(features, generator=torch.Generator().manual_seed(seed))
