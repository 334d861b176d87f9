"""A stream from its source into a learner, with a run folder: what `dualprop stream` does."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from dualprop.errors import CheckpointError, DataError, DivergenceError, DualpropError, Interrupted
from dualprop.nets import NETS
from dualprop.runs.recorder import Recorder
from dualprop.runs.streams import StreamRun, StreamSettings
from dualprop.training.interrupt import Interrupt
from dualprop.training.resolved import make_net
from dualprop.training.stream.learner import Learner
from dualprop.training.stream.pairing import Delayed, Present
from dualprop.training.stream.sources import Item, Named, Source, made
from dualprop.training.stream.tick import Tick

logger = logging.getLogger("dualprop")

WINDOW = 1000
"""Frames of the accuracy that is called recent."""


class Detector(Protocol):
    """What says that a stream has changed, as River's ADWIN does."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last error has shown a change."""

    @property
    def estimation(self) -> float:
        """How often there is an error, as far as nothing has changed."""

    def update(self, x: float) -> Any:
        """Take an error, 0 or 1."""


@dataclass
class Counts:
    """What has been seen of a stream so far.

    Attributes:
        items: how many the source has given.
        judged: frames whose label was there when they were at the output.
        correct: how many of those were classified as their labels say.
        dropped: frames that the learner was too slow for.
        unread: lines and frames that could not be read.
        recent: 1 or 0 for each of the last thousand that were judged.
        first: for each frame on its way to the output, whether it is the first view of a picture.
        drifts: ticks at which errors were seen to be more than before.
        called: what frames are called that may still be labelled, each with its tick.
    """

    items: int = 0
    judged: int = 0
    correct: int = 0
    dropped: int = 0
    unread: int = 0
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    first: deque[bool] = field(default_factory=deque)
    drifts: list[int] = field(default_factory=list)
    called: deque[tuple[int | str, int]] = field(default_factory=deque)

    @property
    def accuracy(self) -> float:
        """Of all judged so far; NaN for none."""
        return self.correct / self.judged if self.judged else math.nan

    @property
    def recent_accuracy(self) -> float:
        """Of the last thousand."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    def state_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {name: list(value) if isinstance(value, deque) else value for name, value in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, value in vars(self).items():
            kept = state[name]
            setattr(self, name, deque(kept, value.maxlen) if isinstance(value, deque) else kept)


class Watcher(Protocol):
    """Who is shown how a stream goes."""

    def __call__(self, stream: Stream) -> None:
        """After every tick."""


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


def begin(
    settings: StreamSettings, folder: Path, watch: Watcher | None = None, stdin: TextIO | None = None
) -> Stream:
    """Follow a stream into a new run folder, to its end.

    Args:
        settings: of the stream.
        folder: the run folder to make.
        watch: is shown every tick.
        stdin: where lines come from; standard input by default.

    Raises:
        DualpropError: for settings that do not fit, before there is a folder.
        Interrupted: on Ctrl-C, after a checkpoint has been saved.
    """
    with Interrupt() as interrupt:
        source = _source(settings, stdin, interrupt)
        stream = Stream(settings, source, detector())
        run = StreamRun.create(folder, settings, _resolved(stream), {"stream": stream.state_dict()})
        return _followed(run, stream, settings, watch, interrupt)


def resume(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
    stdin: TextIO | None = None,
) -> Stream:
    """Go on with a stream where its last checkpoint was made; arguments as of `begin`.

    Args:
        folder: its run folder.
        changes: settings that a stream does not depend on: frames, fps, places, drop, strict.
        watch: is shown every tick.
        stdin: where lines come from.

    Raises:
        CheckpointError: for a folder that is none of a stream, or whose checkpoint is damaged.
    """
    run = StreamRun.open(folder)
    settings = run.settings.replaced(changes or {})
    with Interrupt() as interrupt:
        run.claim()
        try:
            kept = run.load().get("stream")
            if not isinstance(kept, dict):
                raise CheckpointError(f"{folder}: not the checkpoint of a stream")
            source = made(settings, stdin or sys.stdin)
            if isinstance(source, Named):
                source.load_state_dict(kept["source"])
                source.in_shape = (len(kept["source"]["features"]["names"]),)
            stream = Stream(settings, source, detector())
            stream.load_state_dict(kept)
            run.reopen(settings)
        finally:
            run.release()
        return _followed(run, stream, settings, watch, interrupt)


def _source(settings: StreamSettings, stdin: TextIO | None, interrupt: Interrupt) -> Source:
    """The source, once its first frame is known."""
    source = made(settings, stdin or sys.stdin)
    if isinstance(source, Named):
        try:
            source.wait(lambda: interrupt.asked)
        except StopIteration:
            raise DataError(f"source={settings.source}: ends before there is a sample") from None
        if interrupt.asked:
            raise Interrupted("stopped before there was a sample")
    return source


def _followed(
    run: StreamRun, stream: Stream, settings: StreamSettings, watch: Watcher | None, interrupt: Interrupt
) -> Stream:
    run.claim()
    try:
        with Recorder(run, stream.learner.ticks) as recorder:
            try:
                _follow(run, recorder, stream, settings, watch or (lambda stream: None), interrupt)
            except DataError:
                run.save({"stream": stream.state_dict()})
                raise
        run.finish({"ticks": stream.learner.ticks, **stream.numbers()})
        return stream
    finally:
        run.release()


def _follow(
    run: StreamRun,
    recorder: Recorder,
    stream: Stream,
    settings: StreamSettings,
    watch: Watcher,
    interrupt: Interrupt,
) -> None:
    saved = recorded = begun = time.monotonic()
    ticks, given = stream.learner.ticks, 0
    for item in stream.source.items(stream.counts.items):
        if interrupt.asked:
            break
        if item is None:
            watch(stream)
            continue
        stream.counts.items += 1
        given += 1
        if settings.fps and _too_late(begun + (given - 1) / settings.fps, 1 / settings.fps):
            stream.counts.dropped += 1
            continue
        try:
            stream.take(item)
        except DivergenceError:
            raise
        except DualpropError as error:
            stream.counts.unread += 1
            if settings.strict:
                raise DataError(f"{error} (strict; what was learnt is in {run.path})") from None
            logger.warning("%s; left out", error)
        now = time.monotonic()
        if stream.learner.ticks - ticks >= settings.log_every:
            stream.speed = (stream.learner.ticks - ticks) / max(now - recorded, 1e-9)
            ticks, recorded = stream.learner.ticks, now
            recorder.record("train", ticks, **stream.numbers())
        if now - saved >= settings.checkpoint_every:
            run.save({"stream": stream.state_dict()})
            saved = now
        watch(stream)
        if settings.frames is not None and stream.learner.ticks >= settings.frames:
            break
    if stream.learner.ticks > ticks:
        stream.speed = (stream.learner.ticks - ticks) / max(time.monotonic() - recorded, 1e-9)
        recorder.record("train", stream.learner.ticks, **stream.numbers())
    run.save({"stream": stream.state_dict()})
    if interrupt.asked:
        raise Interrupted(
            f"stopped after {stream.learner.ticks} ticks; go on with: dualprop stream --resume {run.path}"
        )


def _too_late(due: float, tick: float) -> bool:
    """Wait until a frame is due; whether it has been gone by then."""
    wait = due - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    return wait < -tick


def detector() -> Detector | None:
    """River's ADWIN, if River is there."""
    try:
        from river.drift import ADWIN
    except ImportError:
        return None
    adwin: Detector = ADWIN()
    return adwin


HIDDEN = (128, 128)
"""Neurons of the hidden layers where nobody says how many."""


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


def _resolved(stream: Stream) -> dict[str, Any]:
    return {
        "net": stream.made_of,
        "latency": stream.learner.latency,
        "drift_detector": None if detector() is None else "river.drift.ADWIN",
    }
