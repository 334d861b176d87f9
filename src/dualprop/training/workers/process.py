"""A worker with its links: what its process does, wherever that is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import dualprop
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs import checkpoint
from dualprop.runs.documents import replace_file
from dualprop.runs.settings import Settings
from dualprop.training.experiment import build
from dualprop.training.resolved import Resolved
from dualprop.training.workers.links import End
from dualprop.training.workers.message import VERSION, Kind, Message
from dualprop.training.workers.parts import part_of
from dualprop.training.workers.ways import parsed
from dualprop.training.workers.worker import Worker

REPORT_EVERY = 0.25
"""Seconds between two reports to the driver."""
FOLDER = "workers"
"""Where in a run folder the layers' snapshots are."""


def snapshot(folder: Path, k: int) -> Path:
    """The file of a layer."""
    return folder / FOLDER / f"layer-{k}.safetensors"


def write_snapshot(folder: Path, k: int, state: Mapping[str, Any]) -> None:
    """Replace the file of a layer.

    Raises:
        CheckpointError: if it cannot be written.
    """
    content = checkpoint.dumped(state)
    replace_file(snapshot(folder, k), lambda file: file.write(content))


def versions() -> dict[str, Any]:
    """What must be the same everywhere."""
    return {"dualprop": dualprop.__version__, "torch": torch.__version__, "messages": VERSION}


class Server:
    """A worker with its links.

    Args:
        order: what to work on, as plain values; see `ProcessCrew`.
        end: makes its end of the links, once it is ready to listen.
    """

    def __init__(self, order: Mapping[str, Any], end: Callable[[], End]) -> None:
        self._order = order
        torch.set_num_threads(order["threads"])
        settings = Settings.from_dict(order["settings"])
        experiment = build(settings, recorded=Resolved.from_dict(order["resolved"]))
        first, last = order["group"]
        self._worker = Worker(part_of(experiment, (first, last), order["groups"]), parsed(order["way"]))
        self._folder = Path(order["folder"])
        self._layers = range(first, last + 1)
        for k in self._layers:
            self._worker.load_state_dict(k, checkpoint.loaded(snapshot(self._folder, k)))
        self._end = end()
        self._stopped = self._started = False
        self._reported = self._saved = time.monotonic()
        self._heard = self._begun = time.monotonic()
        self._busy, self._unknown = 0.0, 0

    def serve(self) -> None:
        """Work until the driver says stop, or is gone."""
        self._say(
            Kind.HELLO,
            {
                "versions": versions(),
                "endpoint": self._end.endpoint,
                "next": self._worker.next,
                "updates": self._worker.counts.updates,
                "pid": os.getpid(),
            },
        )
        try:
            while not self._stopped:
                self._turn()
        except DualpropError as error:
            self._say(Kind.FAILED, {"error": str(error), "diverged": isinstance(error, ArithmeticError)})
        finally:
            self._end.close()

    def _turn(self) -> None:
        """Wait for what comes, act on it, and say what is due."""
        worker, now = self._worker, time.monotonic()
        wait = min(worker.due if self._started else now + REPORT_EVERY, self._reported + REPORT_EVERY) - now
        forsaken = self._end.wait(wait)
        for message in self._end.orders():
            self._obey(message)
        if forsaken:
            self._stopped = True
            return
        if self._started:
            messages = list(self._end.messages())
            now = time.monotonic()
            self._heard = now if messages else self._heard
            if worker.way.one_by_one:
                for message in sorted(messages, key=lambda message: message.kind):
                    self._act([message])
            elif messages:
                self._act(messages)
            if time.monotonic() >= worker.due:
                self._act([])
        if now >= self._reported + REPORT_EVERY:
            self._report(now)
        if self._started and now >= self._saved + self._order["snapshot_every"]:
            self._save()

    def _act(self, messages: list[Message]) -> None:
        """What the worker has to say to them."""
        begun = time.monotonic()
        posts = self._worker.react(messages, begun)
        seconds = time.monotonic() - begun
        self._busy += seconds
        self._worker.took(seconds)
        for post in posts:
            self._end.send("up" if post.kind is Kind.MEAN else "down", post)

    def _obey(self, message: Message) -> None:
        match message.kind:
            case Kind.START:
                words = message.words
                self._worker.next, self._worker.until = max(self._worker.next, words["next"]), words["until"]
                self._worker.begin_now(time.monotonic())
                self._started, self._begun = True, time.monotonic()
            case Kind.NEIGHBOURS:
                for way, endpoint in message.words.items():
                    self._end.connect(way, endpoint)
            case Kind.ASK:
                for k, weights in self._worker.weights():
                    for part, tensor in enumerate(weights.values()):
                        self._end.say(Message(Kind.WEIGHTS, self._worker.next, k, tensor, part))
            case Kind.SAVE:
                self._save(asked=message.words["number"])
            case Kind.STOP:
                self._stopped = True
            case _:
                self._unknown += 1

    def _report(self, now: float) -> None:
        worker = self._worker
        self._reported = now
        self._say(
            Kind.REPORT,
            {
                "counts": worker.told(),
                "next": worker.next,
                "done": worker.done,
                "age": now - self._heard,
                "dropped": self._end.dropped,
                "share": worker.share,
                "refused": self._end.refused + self._unknown,
                "busy": self._busy / max(now - self._begun, 1e-9),
            },
        )

    def _save(self, asked: int | None = None) -> None:
        """A snapshot of every layer; a disk that cannot be written is a warning."""
        error = ""
        for k in self._layers:
            try:
                write_snapshot(self._folder, k, self._worker.state_dict(k))
            except CheckpointError as failed:
                error = str(failed)
        self._saved = time.monotonic()
        if asked is not None or error:
            self._say(
                Kind.SAVED,
                {
                    "number": asked,
                    "error": error,
                    "next": self._worker.next,
                    "updates": self._worker.counts.updates,
                },
            )

    def _say(self, kind: Kind, words: Mapping[str, Any]) -> None:
        self._end.say(Message.of(kind, words))
