"""A stream into a run folder: what `dualprop stream` does."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from dualprop.errors import CheckpointError, DataError, DivergenceError, DualpropError, Interrupted
from dualprop.runs.recorder import Recorder
from dualprop.runs.streams import StreamRun, StreamSettings
from dualprop.training.interrupt import Interrupt
from dualprop.training.stream.counts import detector
from dualprop.training.stream.follower import Stream
from dualprop.training.stream.sources import Named, Source, made

logger = logging.getLogger("dualprop")

WAIT = 0.2
"""Seconds after which somebody who waits for a frame looks whether that is to be broken off."""


class Watcher(Protocol):
    """Who is shown how a stream goes."""

    def __call__(self, stream: Stream) -> None:
        """After every tick."""


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
        if settings.fps and _too_late(begun + (given - 1) / settings.fps, 1 / settings.fps, interrupt):
            stream.counts.dropped += 1
            continue
        try:
            stream.take(item)
        except DivergenceError:
            raise
        except DualpropError as error:
            stream.counts.unread += 1
            told = f"{item.at}: {error}" if item.at else str(error)
            if settings.strict:
                raise DataError(f"{told} (strict; what was learnt is in {run.path})") from None
            logger.warning("%s; left out", told)
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


def _too_late(due: float, tick: float, interrupt: Interrupt) -> bool:
    """Wait until a frame is due, if nobody interrupts; whether it has been gone by then."""
    left = wait = due - time.monotonic()
    while wait > 0 and not interrupt.asked:
        time.sleep(min(wait, WAIT))
        wait = due - time.monotonic()
    return left < -tick


def _resolved(stream: Stream) -> dict[str, Any]:
    return {
        "net": stream.made_of,
        "latency": stream.learner.latency,
        "drift_detector": None if detector() is None else "river.drift.ADWIN",
    }
