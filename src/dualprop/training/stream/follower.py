"""A learner that follows a source: one item after the other, and what has been seen of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dualprop.errors import DataError, DivergenceError, DualpropError
from dualprop.nets import NETS
from dualprop.runs.streams import StreamSettings
from dualprop.training.resolved import make_net
from dualprop.training.stream.counts import Counts, Detector
from dualprop.training.stream.learner import Learner
from dualprop.training.stream.pairing import Delayed, Present
from dualprop.training.stream.sources import Item, Source
from dualprop.training.stream.tick import Tick

HIDDEN = (128, 128)
"""Neurons of the hidden layers where nobody says how many."""


class Stream:
    """A learner that follows a source.

    Args:
        settings: of the stream.
        source: where frames come from.
        detector: what says that the stream has changed; nobody by default.

    Attributes:
        learner: what learns.
        counts: what has been seen.
        made_of: the arguments of the net.
        speed: ticks per second since the last record.
    """

    def __init__(self, settings: StreamSettings, source: Source, detector: Detector | None = None) -> None:
        self.settings, self.source, self.counts = settings, source, Counts()
        self.made_of = _arguments(settings, source)
        self.learner = Learner(
            make_net(settings.net, self.made_of, settings.seed),
            loss=settings.loss,
            alpha=settings.alpha,
            beta=settings.beta,
            pairing=Present() if settings.pairing == "present" else Delayed(settings.late),
            step=settings.step,
            lr=settings.lr,
            grow=source.grows,
        )
        self.speed = 0.0
        self._detector = detector
        self._loss, self._losses = 0.0, 0

    def take(self, item: Item) -> None:
        """One item: a tick, or a label that comes late.

        Raises:
            DualpropError: for what cannot be learnt from; nothing of it has been then.
            DivergenceError: if a loss is NaN or infinite.
        """
        if item.unread:
            raise DataError(item.unread)
        if item.frame is not None and item.x is None:
            told = None if item.y is None else self.learner.label(self._number(item.frame), item.y)
            if told is not None:
                self._judge(told)
            return
        called = self.counts.called
        tick = self.learner.tick(item.x, item.y)
        if item.frame is not None:
            called.append((item.frame, self.learner.ticks - 1))
        if called and called[0][1] < self.learner.ticks - self.learner.turn:
            called.popleft()
        self.counts.first.append(item.first)
        if tick.frame is not None and self.counts.first.popleft():
            self._judge(tick)

    def _number(self, frame: int | str) -> Any:
        """The number of a frame that is called something; its name, where no frame has one."""
        numbers = [number for name, number in self.counts.called if name == frame]
        if self.counts.called and not numbers:
            raise DataError(f"frame={frame!r}: none of the last {len(self.counts.called)} is called so")
        return numbers[-1] if numbers else frame

    def _judge(self, tick: Tick) -> None:
        if tick.correct is None or tick.loss is None:
            return
        loss = float(tick.loss)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the loss of frame {tick.frame} is {loss}: the weights have run away; give a smaller lr"
            )
        self._loss, self._losses = self._loss + loss, self._losses + 1
        self.counts.judged += 1
        self.counts.correct += tick.correct
        self.counts.recent.append(tick.correct)
        if self._detector is not None:
            before = self._detector.estimation
            self._detector.update(1.0 - tick.correct)
            if self._detector.drift_detected and self._detector.estimation > before:  # for the worse
                self.counts.drifts.append(self.learner.ticks)

    @property
    def dropped(self) -> int:
        """Frames that the learner was too slow for."""
        return self.counts.dropped + self.source.dropped

    def numbers(self) -> dict[str, float]:
        """What has been measured since the last time that somebody asked, and so far."""
        counts = self.counts
        loss = self._loss / self._losses if self._losses else math.nan
        self._loss, self._losses = 0.0, 0
        measured = {
            "loss": loss,
            "accuracy": counts.accuracy,
            "recent_accuracy": counts.recent_accuracy,
            "ticks_per_second": self.speed,
            "judged": counts.judged,
            "dropped": self.dropped,
            "unread": counts.unread,
            "late_labels_missed": self.learner.missed,
            "drifts": len(counts.drifts),
        }
        return {name: number for name, number in measured.items() if math.isfinite(number)}

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "learner": self.learner.state_dict(),
            "counts": {**self.counts.state_dict(), "dropped": self.dropped},
            "source": self.source.state_dict(),
            "seen": self.source.digest(self.counts.items),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back.

        Raises:
            DualpropError: if it does not fit.
        """
        try:
            self.source.load_state_dict(state["source"])
            self.learner.load_state_dict(state["learner"])
            self.counts.load_state_dict(state["counts"])
            seen = state["seen"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DualpropError(f"state: not that of a stream ({error!r})") from None
        if seen != self.source.digest(self.counts.items):
            raise DualpropError(
                f"source={self.settings.source}: what the stream has had of it ({self.counts.items} ticks) is not"
                " what it was; only what comes behind may change"
            )
        if self._detector is not None:
            for correct in self.counts.recent:
                self._detector.update(1.0 - correct)


def _arguments(settings: StreamSettings, source: Source) -> dict[str, Any]:
    """Those of the net, made to fit the source."""
    kind = NETS[settings.net]
    return kind.choose(
        source.in_shape,
        source.classes,
        settings.net_settings,
        hidden=HIDDEN if settings.hidden is None and kind.sizes else settings.hidden,
        activation=settings.activation,
        feedback="symmetric",
    )
